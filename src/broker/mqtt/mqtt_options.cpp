// What it is: the reader of options that only MQTT has.
// Who calls it: mqtt_module.cpp.
// Never: looks at a URL, or at what all protocols have.
#include "broker/mqtt/mqtt_options.hpp"

#include <nlohmann/json.hpp>

#include "broker/mqtt/packets.hpp"

namespace eventbus::broker::mqtt {

namespace {

constexpr const char* client_id_form = "a text of 1 to 65535 bytes";
constexpr const char* will_form =
    "an object of \"topic\" (a text without \"+\" and \"#\") and, if wanted, \"payload\" (a text of at most 65535 "
    "bytes), \"qos\" (0, 1 or 2) and \"retain\" (true or false)";

bool is_topic(const std::string& text) {
    return !text.empty() && text.size() <= longest_string &&
           text.find_first_of(std::string_view("+#\0", 3)) == std::string::npos;
}

Will read_will(const Option& option) {
    const auto& value = option.value();
    if (!value.is_object() || !value.contains("topic")) option.must_be(will_form);
    Will will;
    for (const auto& [key, part] : value.items()) {
        const auto* text = part.get_ptr<const std::string*>();
        if (key == "topic" && text && is_topic(*text)) {
            will.topic = *text;
        } else if (key == "payload" && text && text->size() <= longest_string) {
            will.payload = *text;
        } else if (key == "qos" && part.is_number_integer() && part >= 0 && part <= 2) {
            will.qos = part.get<int>();
        } else if (key == "retain" && part.is_boolean()) {
            will.retain = part.get<bool>();
        } else {
            option.must_be(will_form);
        }
    }
    return will;
}

MqttVersion read_version(const Option& option) {
    if (option.value() == 5) return MqttVersion::v5;
    return option.one_of({"5", "3.1.1"}) == 0 ? MqttVersion::v5 : MqttVersion::v3_1_1;
}

}  // namespace

MqttOptions read_options(const Options& options) {
    MqttOptions read;
    if (const auto given = options.find("confirm_timeout")) read.confirm_timeout_s = given->whole_seconds(3600);
    if (const auto given = options.find("version")) read.version = read_version(*given);
    if (const auto given = options.find("client_id")) {
        read.client_id = given->filled_text(client_id_form);
        if (read.client_id.size() > longest_string) given->must_be(client_id_form);
    }
    if (const auto given = options.find("session_expiry")) read.session_expiry_s = given->whole_seconds(4'294'967'295);
    if (const auto given = options.find("will")) read.will = read_will(*given);
    return read;
}

MqttRoute read_route_options(const Options& options) {
    MqttRoute read;
    if (const auto given = options.find("qos")) read.qos = static_cast<int>(given->whole_number(0, 2));
    if (const auto given = options.find("retain")) read.retain = given->boolean();
    return read;
}

}  // namespace eventbus::broker::mqtt
