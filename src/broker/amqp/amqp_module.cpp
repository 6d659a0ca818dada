// What it is: the face of the AMQP 0-9-1 module: what it is called, what it knows, how to connect.
// Who calls it: whoever loads pg_eventbus_amqp.so: create_broker to check, the sender to connect.
// Never: does I/O in check().
#include <array>

#include "broker/amqp/amqp_driver.hpp"
#include "broker/amqp/login.hpp"
#include "broker/stream/discreet.hpp"
#include "core/bad_input.hpp"

namespace eventbus::broker::amqp {

namespace {

constexpr std::array<std::string_view, 2> kinds{"exchange", "queue"};
constexpr std::array<std::string_view, 2> route_options{"routing_key", "persistent"};
constexpr std::array<std::string_view, 1> broker_options{"confirm_timeout"};

void check(const BrokerSettings& settings) {
    const Url& url = settings.url;
    if (url.scheme != "amqp" && url.scheme != "amqps")
        throw BadInput("URL scheme \"" + url.scheme + "\" is not AMQP's", {}, "Valid schemes are: amqp, amqps.");
    for (const Host& host : url.hosts)
        if (host.is_unix())
            throw BadInput("AMQP brokers are not reached through unix sockets", {}, "Write amqp://host:port/vhost.");
    check_tls_options(settings, "amqps");
    static_cast<void>(ClientSettings(settings));
}

void find_idle(const BrokerSettings& settings, IdleOptions& idle) {
    const BrokerOptions& options = settings.options;
    if (options.given.contains("heartbeat") && settings.url.query.contains("heartbeat"))
        idle.add("heartbeat", "The URL has a \"heartbeat\" of its own, which is used.");
    if (options.given.contains("connect_timeout") && settings.url.query.contains("connection_timeout"))
        idle.add("connect_timeout", "The URL has a \"connection_timeout\" of its own, which is used.");
}

std::unique_ptr<Driver> connect(const BrokerSettings& settings, unsigned attempt, TimePoint now) {
    return discreet(std::make_unique<AmqpDriver>(settings, attempt, now), settings);
}

const Module module{.protocol = "amqp",
                    .kinds = kinds,
                    .route_options = route_options,
                    .broker_options = broker_options,
                    .longest_name = 255,  // AMQP 0-9-1, 4.2.5.3: short strings
                    .flaw_in_name = nullptr,
                    .check = check,
                    .find_idle = find_idle,
                    .connect = connect};

}  // namespace

}  // namespace eventbus::broker::amqp

extern "C" __attribute__((visibility("default"))) const eventbus::broker::Module* eventbus_driver_module();

extern "C" const eventbus::broker::Module* eventbus_driver_module() {
    return &eventbus::broker::amqp::module;
}
