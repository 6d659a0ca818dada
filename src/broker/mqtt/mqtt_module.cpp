// What it is: the face of the MQTT module: what it is called, what it knows, how to connect.
// Who calls it: whoever loads pg_eventbus_mqtt.so: create_broker to check, the sender to connect.
// Never: does I/O in check().
#include <array>

#include "broker/mqtt/mqtt_driver.hpp"
#include "broker/mqtt/text.hpp"
#include "broker/stream/discreet.hpp"
#include "core/bad_input.hpp"

namespace eventbus::broker::mqtt {

namespace {

constexpr std::array<std::string_view, 1> kinds{"topic"};
constexpr std::array<std::string_view, 2> route_options{"qos", "retain"};
constexpr std::array<std::string_view, 5> broker_options{"confirm_timeout", "version", "client_id", "session_expiry",
                                                         "will"};

constexpr const char* url_form =
    "Write mqtt://[user:password@]host[:port][,host[:port]...], mqtts://... for TLS, or ws://host[:port]/path and "
    "wss://... for WebSockets.";

[[noreturn]] void refuse(std::string message, std::string detail = {}) {
    throw BadInput(std::move(message), std::move(detail), url_form);
}

void check_option(const std::string& name, const std::string& flaw) {
    if (!flaw.empty()) throw BadInput("broker option \"" + name + "\" " + flaw, {}, "Leave the character out.");
}

std::string flaw_in_will(const Will& will) {
    const std::string flaw = flaw_in_name(will.topic);
    return flaw.empty() ? flaw : "has a topic that " + flaw;
}

void check(const BrokerSettings& settings) {
    const Url& url = settings.url;
    const bool websocket = url.scheme == "ws" || url.scheme == "wss";
    if (!websocket && url.scheme != "mqtt" && url.scheme != "mqtts") refuse("broker URL's scheme is not one of MQTT");
    if (!url.query.empty())
        refuse("unknown parameter in an MQTT URL", "MQTT URLs have no parameters; all else is a broker option.");
    if (!websocket && !url.path.empty()) refuse("MQTT URL has a path", "Only WebSockets have one.");
    for (const Host& host : url.hosts)
        if (host.is_unix()) refuse("MQTT brokers are not reached through unix sockets");
    if (!url.has_user && (url.has_password || !settings.options.password_file.empty()))
        refuse("MQTT URL has no user for the password", "MQTT knows no password without a user.");
    if (url.password.size() > longest_string)
        refuse("password in an MQTT URL is too long", "MQTT takes at most 65535 bytes.");
    if (std::string flaw = flaw_in_text(url.user); !flaw.empty()) refuse("user in an MQTT URL " + flaw);
    const BrokerOptions& options = settings.options;
    check_option("client_id", flaw_in_text(options.client_id));
    if (options.will) check_option("will", flaw_in_will(*options.will));
    check_tls_options(settings, websocket ? "wss" : "mqtts");
}

void find_idle(const BrokerSettings& settings, IdleOptions& idle) {
    const BrokerOptions& options = settings.options;
    if (!options.given.contains("session_expiry") || options.session_expiry_s == 0) return;
    if (!options.client_id.empty())
        idle.add(
            "session_expiry",
            "With \"client_id\" no session is kept, for another client may have the same id: QoS 2 is at least once.");
    else if (options.version == MqttVersion::v3_1_1)
        idle.add("session_expiry", "MQTT 3.1.1 does not have it, and no session is kept: QoS 2 is at least once.");
}

std::unique_ptr<Driver> connect(const BrokerSettings& settings, unsigned attempt, TimePoint now) {
    return discreet(std::make_unique<MqttDriver>(settings, attempt, now), settings);
}

const Module module{.protocol = "mqtt",
                    .kinds = kinds,
                    .route_options = route_options,
                    .broker_options = broker_options,
                    .longest_name = longest_string,
                    .flaw_in_name = flaw_in_part_of_name,
                    .check = check,
                    .find_idle = find_idle,
                    .connect = connect};

}  // namespace

}  // namespace eventbus::broker::mqtt

extern "C" __attribute__((visibility("default"))) const eventbus::broker::Module* eventbus_driver_module();

extern "C" const eventbus::broker::Module* eventbus_driver_module() {
    return &eventbus::broker::mqtt::module;
}
