// What it is: the face of the AMQP 0-9-1 module: what it is called, what it knows, how to connect.
// Who calls it: whoever loads pg_eventbus_amqp.so: create_broker to check, the sender to connect.
// Never: does I/O but in what connect() returns.
#include <array>

#include "broker/amqp/amqp_driver.hpp"
#include "broker/amqp/login.hpp"
#include "broker/stream/redacted_driver.hpp"
#include "core/bad_input.hpp"

namespace eventbus::broker::amqp {

namespace {

constexpr std::array<Scheme, 2> schemes{{{"amqp", 5672}, {"amqps", 5671}}};
constexpr std::array<OtherNames, 3> other_names{
    {{" rabbitmq rabbit pyamqp lavinmq amqp+tcp ", "RabbitMQ is spoken to in AMQP.", "Write amqp://."},
     {" rabbitmqs rabbits amqp+ssl amqp+tls amqpssl amqp-tls ", "", "Write amqps://."},
     {" amqp10 amqp1 amqp+1 ", "AMQP 1.0 is another protocol than AMQP 0-9-1, which amqp:// is.", ""}}};
constexpr std::array<std::string_view, 2> kinds{"exchange", "queue"};
constexpr std::array<std::string_view, 2> route_options{"routing_key", "persistent"};
constexpr std::array<std::string_view, 1> broker_options{"confirm_timeout"};

void find_idle(const BrokerSettings& settings, IdleOptions& idle) {
    const BrokerOptions& options = settings.options;
    if (options.given.contains("heartbeat") && settings.url.query.contains("heartbeat"))
        idle.add("heartbeat", "The URL has a \"heartbeat\" of its own, which is used.");
    if (options.given.contains("connect_timeout") && settings.url.query.contains("connection_timeout"))
        idle.add("connect_timeout", "The URL has a \"connection_timeout\" of its own, which is used.");
}

Handle read_broker(const BrokerSettings& settings, const Options& options, IdleOptions& idle) {
    AmqpOptions read;
    if (const auto given = options.find("confirm_timeout")) read.confirm_timeout_s = given->whole_seconds(3600);
    for (const Host& host : settings.url.hosts)
        if (host.is_unix())
            throw BadInput("AMQP brokers are not reached through unix sockets", {}, "Write amqp://host:port/vhost.");
    check_tls_options(settings, "amqps");
    static_cast<void>(ClientSettings(settings));
    find_idle(settings, idle);
    return std::make_shared<AmqpOptions>(read);
}

RouteRead read_route(std::string_view kind, const Options& options) {
    const bool to_exchange = kind == "exchange";
    AmqpRoute read;
    std::optional<std::string> routing_key;
    if (to_exchange) routing_key = "{topic}";
    if (const auto given = options.find("persistent")) read.persistent = given->boolean();
    if (const auto given = options.find("routing_key")) {
        routing_key = given->text("a template, such as \"{topic}\"");
        if (!to_exchange)
            throw BadInput("route option \"routing_key\" is only for exchanges", {},
                           "Use a destination of the form exchange:NAME, or leave the option out.");
    }
    return {std::make_shared<AmqpRoute>(read), routing_key};
}

std::unique_ptr<Driver> connect(const BrokerSettings& settings, unsigned attempt, TimePoint now) {
    return redacted(std::make_unique<AmqpDriver>(settings, attempt, now), settings);
}

const Module module{.protocol = "amqp",
                    .schemes = schemes,
                    .other_names = other_names,
                    .kinds = kinds,
                    .route_options = route_options,
                    .broker_options = broker_options,
                    .longest_name = 255,  // AMQP 0-9-1, 4.2.5.3: short strings
                    .flaw_in_name = nullptr,
                    .read_broker = read_broker,
                    .read_route = read_route,
                    .connect = connect};

}  // namespace

}  // namespace eventbus::broker::amqp

extern "C" __attribute__((visibility("default"))) const eventbus::broker::Module* eventbus_driver_module();

extern "C" const eventbus::broker::Module* eventbus_driver_module() {
    return &eventbus::broker::amqp::module;
}
