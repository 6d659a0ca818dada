// What it is: the face of the Redis module: its kinds and options, the check of settings, the connector.
// Who calls it: whoever loads pg_eventbus_redis.so: create_broker and the sender.
// Never: does I/O but in what connect() returns.
#include <array>
#include <charconv>
#include <limits>

#include "broker/redis/redis_driver.hpp"
#include "broker/redis/redis_options.hpp"
#include "broker/stream/redacted_driver.hpp"
#include "core/bad_input.hpp"

namespace eventbus::broker::redis {

namespace {

constexpr const char* url_form =
    "Write redis://[[user]:password@]host[:port][,host[:port]...][/db], rediss://... for TLS, or "
    "redis:///path/of/socket?db=number.";

[[noreturn]] void refuse(std::string message, std::string detail = {}, std::string hint = url_form) {
    throw BadInput(std::move(message), std::move(detail), std::move(hint));
}

Handle read_broker(const BrokerSettings& settings, const Options&, IdleOptions&) {
    const Url& url = settings.url;
    for (const auto& parameter : url.query) {
        if (parameter.first != "db")
            refuse("unknown parameter in a Redis URL", {},
                   "The only parameter is \"db\". Everything else is a broker option.");
    }
    database_number(url);
    if (url.has_user && !url.has_password && settings.options.password_file.empty())
        refuse("Redis URL has a user without a password",
               "A password alone stands after a colon, redis://:password@host.",
               "Write redis://user:password@host, or use the option \"password_file\".");
    for (const Host& host : url.hosts) {
        if (url.scheme == "rediss" && host.is_unix())
            refuse("TLS over a unix socket makes no sense", {}, "Use redis:// with unix sockets.");
    }
    check_tls_options(settings, "rediss");
    return nullptr;
}

RouteRead read_route(std::string_view kind, const Options& options) {
    RedisRoute read;
    if (const auto given = options.find("maxlen"))
        read.maxlen = given->whole_number(0, std::numeric_limits<std::int64_t>::max());
    if (read.maxlen > 0 && kind != "stream")
        throw BadInput("route option \"maxlen\" is only for streams", {},
                       "Use a destination of the form stream:KEY, or leave the option out.");
    return {std::make_shared<RedisRoute>(read), std::nullopt};
}

std::unique_ptr<Driver> connect(const BrokerSettings& settings, unsigned attempt, TimePoint now) {
    return redacted(std::make_unique<RedisDriver>(settings, attempt, now), settings);
}

constexpr std::array<Scheme, 2> schemes{{{"redis", 6379}, {"rediss", 6379}}};
constexpr std::array<OtherNames, 4> other_names{
    {{" valkey keydb redis+tcp dragonfly ", "It is spoken to in Redis' protocol.", "Write redis://."},
     {" valkeys redis+tls redis+ssl redis-tls redis-ssl redistls tls+redis ", "", "Write rediss://."},
     {" redis+socket redis-socket redis+unix unix unixsocket ", "", "Write redis:///path/of/socket."},
     {" redis-sentinel redis+sentinel sentinel rediss+sentinel redis+cluster ",
      "Sentinels and clusters are not followed.", "Write redis:// with the server's own host, or several of them."}}};
constexpr std::array<std::string_view, 4> kinds{"channel", "list", "stream", "topic"};
constexpr std::array<std::string_view, 1> route_options{"maxlen"};

const Module module{.protocol = "redis",
                    .schemes = schemes,
                    .other_names = other_names,
                    .kinds = kinds,
                    .route_options = route_options,
                    .read_broker = read_broker,
                    .read_route = read_route,
                    .connect = connect};

}  // namespace

unsigned database_number(const Url& url) {
    const auto parameter = url.query.find("db");
    const bool asked = parameter != url.query.end();
    if (asked && !url.path.empty()) refuse("Redis URL names two databases", "One is in its path and one in \"db\".");
    if (!asked && url.path.empty()) return 0;
    const std::string& text = asked ? parameter->second : url.path;
    unsigned number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (text.empty() || error != std::errc() || end != text.data() + text.size() || number > 1'000'000)
        refuse("invalid database in a Redis URL", "Databases of Redis are numbers from 0.");
    return number;
}

}  // namespace eventbus::broker::redis

extern "C" __attribute__((visibility("default"))) const eventbus::broker::Module* eventbus_driver_module();

extern "C" const eventbus::broker::Module* eventbus_driver_module() {
    return &eventbus::broker::redis::module;
}
