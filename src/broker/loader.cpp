// What it is: see loader.hpp.
// Who calls it: see loader.hpp.
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

const Scheme& find_scheme(std::string_view name) {
    std::string known;
    for (const Scheme& scheme : schemes) {
        if (scheme.name == name) return scheme;
        if (!known.empty()) known += ", ";
        known += scheme.name;
    }
    throw BadInput("unknown URL scheme \"" + std::string(name) + "\"", {}, "Known schemes: " + known + ".");
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
