// What it is: one event as a PUBLISH packet; see mqtt_message.hpp.
// Who calls it: the MQTT driver, when it is offered an event.
// Never: writes half a packet, or one that would make the broker close the connection.
#include "broker/mqtt/mqtt_message.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "broker/mqtt/text.hpp"
#include "core/headers.hpp"
#include "core/time_text.hpp"

namespace eventbus::broker::mqtt {

namespace {

using Json = nlohmann::json;

constexpr std::array<std::string_view, 5> own_names = {"event-id", "event-topic", "event-key", "event-time",
                                                       "event-source"};
constexpr std::uint64_t most_expiration_ms = 4'294'967'295'000;  // the property has 32 bits of seconds

// "the key has ...", where there is something wrong with it.
std::string told(std::string_view what, const std::string& flaw) {
    return flaw.empty() ? std::string() : std::string(what) + ' ' + flaw;
}

std::string of_header(const std::string& name) {
    return "header \"" + name + '"';
}

// A string or a number that stands for milliseconds; as seconds, rounded up.
bool read_expiration(const Json& value, std::uint32_t& seconds) {
    std::uint64_t ms = 0;
    if (value.is_number_unsigned()) {
        ms = value.get<std::uint64_t>();
    } else if (value.is_string()) {
        const auto& text = value.get_ref<const std::string&>();
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), ms);
        if (error != std::errc{} || end != text.data() + text.size()) return false;
    } else {
        return false;
    }
    if (ms > most_expiration_ms) return false;
    seconds = static_cast<std::uint32_t>((ms + 999) / 1000);
    return true;
}

std::string as_text(const Json& value) {
    return value.is_string() ? value.get_ref<const std::string&>() : value.dump();
}

std::string add_user_property(std::string& out, const std::string& name, const Json& value) {
    const std::string text = as_text(value);
    if (std::string flaw = flaw_in_text(text); !flaw.empty()) return told(of_header(name), flaw);
    append_user_property(out, name, text);
    return {};
}

std::string add_header(std::string& out, const std::string& name, const Json& value) {
    if (std::find(own_names.begin(), own_names.end(), name) != own_names.end()) return {};
    if (std::string flaw = flaw_in_text(name); !flaw.empty()) return told("a header's name", flaw);
    if (name == "correlation-id") {  // which is binary data
        const std::string text = as_text(value);
        if (text.size() > longest_string) return told(of_header(name), flaw_in_text(text));
        append_property(out, Property::correlation_data, text);
        return {};
    }
    if (name == "reply-to") {
        const std::string topic = as_text(value);
        if (std::string flaw = flaw_in_name(topic); !flaw.empty()) return told(of_header(name), flaw);
        append_property(out, Property::response_topic, topic);
        return {};
    }
    if (name == "expiration") {
        std::uint32_t seconds = 0;
        if (!read_expiration(value, seconds))
            return "header \"expiration\" is not a number of milliseconds from 0 to 4294967295000";
        append_property(out, Property::message_expiry);
        append_long(out, seconds);
        return {};
    }
    if (!value.is_array()) return add_user_property(out, name, value);
    for (const Json& item : value) {
        if (std::string problem = add_user_property(out, name, item); !problem.empty()) return problem;
    }
    return {};
}

bool refuse(Settlement& refusal, const Outgoing& outgoing, Remedy remedy, std::string reason) {
    refusal = {outgoing.ticket, Verdict::refused, remedy, std::move(reason)};
    return false;
}

}  // namespace

std::string lacks(const MqttRoute& route, const Limits& limits) {
    if (route.qos > limits.maximum_qos)
        return "the broker takes QoS " + std::to_string(limits.maximum_qos) + " at most" + limits.qos_why +
               ", the route has QoS " + std::to_string(route.qos);
    if (route.retain && !limits.retain_available)
        return "the broker does not retain messages, which the route asks for";
    return {};
}

MessageWriter::MessageWriter(std::string_view source) : source_(with_marks(source)) {}

std::string MessageWriter::add_headers(const Event& event) {
    if (event.headers.empty()) return {};
    const Json headers = parse_headers(event.headers);
    if (!headers.is_object()) return "the headers are not a JSON object that can be sent";
    for (const auto& [name, value] : headers.items()) {
        if (std::string problem = add_header(properties_, name, value); !problem.empty()) return problem;
    }
    return {};
}

std::string MessageWriter::fill_properties(const Event& event) {
    std::string problem = told("the content type", flaw_in_text(event.content_type));
    if (problem.empty()) problem = told("the topic", flaw_in_text(event.topic));
    if (problem.empty() && event.key) problem = told("the key", flaw_in_text(*event.key));
    if (!problem.empty()) return problem;
    EventIdText id;
    std::array<char, rfc3339_length> time;

    properties_.clear();
    append_property(properties_, Property::payload_format);
    append_byte(properties_, event.is_bytes ? 0 : 1);
    if (!event.content_type.empty()) append_property(properties_, Property::content_type, event.content_type);
    append_user_property(properties_, "event-id", to_text(event.id, id));
    append_user_property(properties_, "event-topic", event.topic);
    if (event.key) append_user_property(properties_, "event-key", *event.key);
    append_user_property(properties_, "event-time", rfc3339(event.published_at, time));
    append_user_property(properties_, "event-source", source_);
    return add_headers(event);
}

bool MessageWriter::write(std::string& out, const Outgoing& outgoing, const Limits& limits, std::uint16_t id,
                          bool again, Settlement& refusal) {
    const Event& event = *outgoing.event;
    const MqttRoute& route = route_of(*outgoing.addressing);
    const int qos = route.qos;
    const bool v5 = limits.version == MqttVersion::v5;
    if (std::string problem = told("the destination's name", flaw_in_name(outgoing.name)); !problem.empty())
        return refuse(refusal, outgoing, Remedy::park, std::move(problem));
    if (std::string problem = lacks(route, limits); !problem.empty())
        return refuse(refusal, outgoing, Remedy::fix_settings, std::move(problem));
    if (v5) {
        if (std::string problem = fill_properties(event); !problem.empty())
            return refuse(refusal, outgoing, Remedy::park, std::move(problem));
    }
    const std::size_t properties = v5 ? variable_size(properties_.size()) + properties_.size() : 0;
    const std::size_t remaining = 2 + outgoing.name.size() + (qos > 0 ? 2 : 0) + properties + event.payload.size();
    const std::size_t size = 1 + variable_size(remaining) + remaining;
    const std::size_t most = limits.maximum_packet > 0 ? limits.maximum_packet : 5 + longest_remaining;
    if (size > most || remaining > longest_remaining)
        return refuse(refusal, outgoing, Remedy::park,
                      "too large for the broker: " + std::to_string(size) + " bytes, it takes " + std::to_string(most));

    append_byte(out, static_cast<unsigned>(Type::publish) << 4 | (again ? 8U : 0U) | static_cast<unsigned>(qos) << 1 |
                         (route.retain ? 1U : 0U));
    append_variable(out, remaining);
    append_string(out, outgoing.name);
    if (qos > 0) append_short(out, id);
    if (v5) {
        append_variable(out, properties_.size());
        out += properties_;
    }
    out += event.payload;
    return true;
}

}  // namespace eventbus::broker::mqtt
