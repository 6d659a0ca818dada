// What it is: the face of the MQTT module: what it is called, what it knows, how to connect.
// Who calls it: whoever loads pg_eventbus_mqtt.so: create_broker to check, the sender to connect.
// Never: does I/O but in what connect() returns.
#include <array>

#include "broker/mqtt/mqtt_driver.hpp"
#include "broker/mqtt/text.hpp"
#include "broker/stream/redacted_driver.hpp"
#include "core/bad_input.hpp"

namespace eventbus::broker::mqtt {

namespace {

constexpr std::array<Scheme, 4> schemes{{{"mqtt", 1883}, {"mqtts", 8883}, {"ws", 80}, {"wss", 443}}};
constexpr std::array<OtherNames, 8> other_names{
    {{" tcp ", "Some MQTT clients write tcp:// for MQTT without TLS.",
      "Write mqtt://, or amqp:// or redis:// for a broker of those."},
     {" ssl tls tcps ", "Some MQTT clients write it for MQTT with TLS.",
      "Write mqtts://, or amqps:// or rediss:// for a broker of those."},
     {" mqtt+tcp mqtt5 mqttv5 mosquitto emqx ", "", "Write mqtt://."},
     {" mqtt+ssl mqtt+tls mqttssl mqtts+tcp mqtt-tls ", "", "Write mqtts://."},
     {" mqtt+ws ws+mqtt mqttws ", "", "Write ws://."},
     {" mqtt+wss wss+mqtt mqttwss mqtts+ws ", "", "Write wss://."},
     {" http https webhook ", "", "MQTT in a WebSocket is ws:// or wss://."},
     {" nats nats+tls tls+nats ", "", "A NATS server with MQTT switched on takes mqtt://."}}};
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

void check_url(const BrokerSettings& settings, bool websocket) {
    const Url& url = settings.url;
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
}

void find_idle(const BrokerSettings& settings, const MqttOptions& options, IdleOptions& idle) {
    if (!settings.options.given.contains("session_expiry") || options.session_expiry_s == 0) return;
    if (!options.client_id.empty())
        idle.add(
            "session_expiry",
            "With \"client_id\" no session is kept, for another client may have the same id: QoS 2 is at least once.");
    else if (options.version == MqttVersion::v3_1_1)
        idle.add("session_expiry", "MQTT 3.1.1 does not have it, and no session is kept: QoS 2 is at least once.");
}

Handle read_broker(const BrokerSettings& settings, const Options& options, IdleOptions& idle) {
    const auto read = std::make_shared<MqttOptions>(read_options(options));
    const bool websocket = settings.url.scheme.starts_with("ws");
    check_url(settings, websocket);
    check_option("client_id", flaw_in_text(read->client_id));
    if (read->will) check_option("will", flaw_in_will(*read->will));
    check_tls_options(settings, websocket ? "wss" : "mqtts");
    find_idle(settings, *read, idle);
    return read;
}

RouteRead read_route(std::string_view, const Options& options) {
    return {std::make_shared<MqttRoute>(read_route_options(options)), std::nullopt};
}

std::unique_ptr<Driver> connect(const BrokerSettings& settings, unsigned attempt, TimePoint now) {
    return redacted(std::make_unique<MqttDriver>(settings, attempt, now), settings);
}

const Module module{.protocol = "mqtt",
                    .schemes = schemes,
                    .other_names = other_names,
                    .kinds = kinds,
                    .route_options = route_options,
                    .broker_options = broker_options,
                    .longest_name = longest_string,
                    .flaw_in_name = flaw_in_part_of_name,
                    .read_broker = read_broker,
                    .read_route = read_route,
                    .connect = connect};

}  // namespace

}  // namespace eventbus::broker::mqtt

extern "C" __attribute__((visibility("default"))) const eventbus::broker::Module* eventbus_driver_module();

extern "C" const eventbus::broker::Module* eventbus_driver_module() {
    return &eventbus::broker::mqtt::module;
}
