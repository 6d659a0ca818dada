// Never: knows a protocol beyond its schemes and its module's name.
#include "broker/loader.hpp"

#include <dlfcn.h>

#include "core/bad_input.hpp"

namespace eventbus::broker {

namespace {

struct Scheme {
    std::string_view name;
    std::string_view protocol;
    std::uint16_t port;  // where the URL has none
};

constexpr Scheme schemes[] = {
    {"amqp", "amqp", 5672}, {"amqps", "amqp", 5671}, {"mqtt", "mqtt", 1883},   {"mqtts", "mqtt", 8883},
    {"ws", "mqtt", 80},     {"wss", "mqtt", 443},    {"redis", "redis", 6379}, {"rediss", "redis", 6379},
};

// What other clients and libraries call it, and what is no broker of ours.
struct Other {
    std::string_view names;  // between blanks
    std::string_view detail;
    std::string_view hint;
};

constexpr Other others[] = {
    {" tcp ", "Some MQTT clients write tcp:// for MQTT without TLS.",
     "Write mqtt://, or amqp:// or redis:// for a broker of those."},
    {" ssl tls tcps ", "Some MQTT clients write it for MQTT with TLS.",
     "Write mqtts://, or amqps:// or rediss:// for a broker of those."},
    {" mqtt+tcp mqtt5 mqttv5 mosquitto emqx ", "", "Write mqtt://."},
    {" mqtt+ssl mqtt+tls mqttssl mqtts+tcp mqtt-tls ", "", "Write mqtts://."},
    {" mqtt+ws ws+mqtt mqttws ", "", "Write ws://."},
    {" mqtt+wss wss+mqtt mqttwss mqtts+ws ", "", "Write wss://."},
    {" rabbitmq rabbit pyamqp lavinmq amqp+tcp ", "RabbitMQ is spoken to in AMQP.", "Write amqp://."},
    {" rabbitmqs rabbits amqp+ssl amqp+tls amqpssl amqp-tls ", "", "Write amqps://."},
    {" amqp10 amqp1 amqp+1 ", "AMQP 1.0 is another protocol than AMQP 0-9-1, which amqp:// is.", ""},
    {" valkey keydb redis+tcp dragonfly ", "It is spoken to in Redis' protocol.", "Write redis://."},
    {" valkeys redis+tls redis+ssl redis-tls redis-ssl redistls tls+redis ", "", "Write rediss://."},
    {" redis+socket redis-socket redis+unix unix unixsocket ", "", "Write redis:///path/of/socket."},
    {" redis-sentinel redis+sentinel sentinel rediss+sentinel redis+cluster ",
     "Sentinels and clusters are not followed.", "Write redis:// with the server's own host, or several of them."},
    {" postgres postgresql pg pgsql ", "That is the URL of a database. A broker is where its events go.", ""},
    {" http https webhook ", "HTTP is not there yet.", "MQTT in a WebSocket is ws:// or wss://."},
    {" kafka kafkas kafka+ssl ", "Kafka is not there yet.", ""},
    {" nats nats+tls tls+nats ", "NATS is not there yet.", "A NATS server with MQTT switched on takes mqtt://."},
    {" pulsar pulsar+ssl sqs sns pubsub gcppubsub azure sb stomp grpc zmq ", "It is not there yet.", ""},
};

const Other* find_other(std::string_view name) {
    const std::string wanted = ' ' + std::string(name) + ' ';
    for (const Other& other : others)
        if (other.names.find(wanted) != std::string_view::npos) return &other;
    return nullptr;
}

const Scheme& find_scheme(std::string_view name) {
    std::string known;
    for (const Scheme& scheme : schemes) {
        if (scheme.name == name) return scheme;
        if (!known.empty()) known += ", ";
        known += scheme.name;
    }
    const Other* other = find_other(name);
    std::string hint(other != nullptr ? other->hint : "");
    hint += (hint.empty() ? "Known schemes: " : " Known schemes: ") + known + '.';
    throw BadInput("unknown URL scheme \"" + std::string(name) + "\"",
                   std::string(other != nullptr ? other->detail : ""), hint);
}

struct Loaded {
    std::string_view protocol;
    const Module* module;
};
Loaded loaded[4];

}  // namespace

const Module* load_module(std::string_view scheme_name, const std::string& directory) {
    const Scheme& scheme = find_scheme(scheme_name);
    for (Loaded& slot : loaded) {
        if (slot.module != nullptr && slot.protocol == scheme.protocol) return slot.module;
        if (slot.module != nullptr) continue;

        std::string protocol(scheme.protocol);
        std::string file = directory + "/pg_eventbus_" + protocol + ".so";
        void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (handle == nullptr) {
            const char* why = dlerror();
            throw BadInput("could not load the " + protocol + " module of pg_eventbus", why != nullptr ? why : "",
                           "Install the module and its client library; other protocols are not affected.");
        }
        auto face = reinterpret_cast<ModuleFunction>(dlsym(handle, module_symbol));
        const Module* module = face != nullptr ? face() : nullptr;
        if (module == nullptr || module->build != this_build())
            throw BadInput("the " + protocol + " module of pg_eventbus is of another version", "File: " + file + ".",
                           "Install pg_eventbus and its modules together, then restart the server.");
        slot = {scheme.protocol, module};
        return module;
    }
    throw BadInput("too many protocols");
}

BrokerSettings read_broker(std::string_view name, std::string_view url, std::string_view options_json,
                           const std::string& directory) {
    BrokerSettings settings;
    const Scheme& scheme = find_scheme(url_scheme(url));
    const Module* module = load_module(scheme.name, directory);
    settings.name = name;
    settings.url = parse_url(url, scheme.port);
    settings.options = read_broker_options(options_json, module->protocol, module->broker_options);
    if (settings.url.has_password && !settings.options.password_file.empty())
        throw BadInput("the password stands in the URL and in a password_file", {}, "Use one of the two.");
    module->check(settings);
    return settings;
}

IdleOptions idle_options(const BrokerSettings& settings, const std::string& directory) {
    IdleOptions idle;
    find_idle_options(settings, idle);
    const Module* module = load_module(settings.url.scheme, directory);
    if (module->find_idle != nullptr) module->find_idle(settings, idle);
    return idle;
}

}  // namespace eventbus::broker
