// Never: knows a protocol.
#include "broker/loader.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <sstream>
#include <system_error>
#include <vector>

#include "core/bad_input.hpp"

namespace eventbus::broker {

namespace {

// What is no scheme of any module that there is. Each module says what its own are called elsewhere.
constexpr OtherNames nobodys[] = {
    {" postgres postgresql pg pgsql ", "That is the URL of a database. A broker is where its events go.", ""},
    {" http https webhook ", "HTTP is not there yet.", ""},
    {" kafka kafkas kafka+ssl ", "Kafka is not there yet.", ""},
    {" nats nats+tls tls+nats ", "NATS is not there yet.", ""},
    {" pulsar pulsar+ssl sqs sns pubsub gcppubsub azure sb stomp grpc zmq ", "It is not there yet.", ""},
};

// The protocols of this build: what a package of its own may have left out.
#ifndef EVENTBUS_PROTOCOLS
#define EVENTBUS_PROTOCOLS ""
#endif

constexpr std::string_view prefix = "pg_eventbus_";
constexpr std::string_view suffix = ".so";

// By NAME of pg_eventbus_NAME.so. What is loaded stays, also at the process's end.
std::map<std::string, Module>& loaded() {
    static auto& modules = *new std::map<std::string, Module>;
    return modules;
}

std::string& searched() {
    static auto& directory = *new std::string;
    return directory;
}

// Of the files that there are, and of those that should be.
std::set<std::string> names_in(const std::string& directory) {
    std::set<std::string> names;
    std::istringstream shipped(EVENTBUS_PROTOCOLS);
    for (std::string name; shipped >> name;) names.insert(name);
    std::error_code error;
    for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
         entry.increment(error)) {
        const std::string file = entry->path().filename().string();
        if (file.starts_with(prefix) && file.ends_with(suffix) && file.size() > prefix.size() + suffix.size())
            names.insert(file.substr(prefix.size(), file.size() - prefix.size() - suffix.size()));
    }
    return names;
}

const Module* ask(void* library) {
    auto face = reinterpret_cast<ModuleFunction>(dlsym(library, module_symbol));
    return face != nullptr ? face() : nullptr;
}

// Throws BadInput where it is none, or cannot be loaded.
const Module& load(const std::string& name, const std::string& directory) {
    if (const auto found = loaded().find(name); found != loaded().end()) return found->second;
    const std::string file = directory + '/' + std::string(prefix) + name + std::string(suffix);
    void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        const char* why = dlerror();
        throw BadInput("could not load the " + name + " module of pg_eventbus", why != nullptr ? why : "",
                       "Install the module and its client library; other protocols are not affected.");
    }
    const Module* module = ask(library);
    if (module == nullptr || module->build != this_build())
        throw BadInput("the " + name + " module of pg_eventbus is of another version", "File: " + file + ".",
                       "Install pg_eventbus and its modules together, then restart the server.");
    if (module->protocol == nullptr || module->protocol != name || module->connect == nullptr)
        throw BadInput("the " + name + " module of pg_eventbus cannot be used",
                       "It does not say that it is of that name, or how to connect. File: " + file + ".",
                       "Remove it, or have it corrected by those who wrote it.");
    Module& kept = loaded().emplace(name, *module).first->second;
    kept.is_elsewhere = [](OptionsOf of, std::string_view option) {
        for (const auto& other : names_in(searched())) {
            try {
                const Module& it = load(other, searched());
                const auto options = of == OptionsOf::broker ? it.broker_options : it.route_options;
                if (std::find(options.begin(), options.end(), option) != options.end()) return true;
            } catch (const BadInput&) {  // it has none, then
            }
        }
        return false;
    };
    return kept;
}

const Scheme* find_scheme(const Module& module, std::string_view name) {
    const auto found = std::find_if(module.schemes.begin(), module.schemes.end(),
                                    [&](const Scheme& scheme) { return scheme.name == name; });
    return found == module.schemes.end() ? nullptr : &*found;
}

struct Failure {
    std::string module;
    BadInput why;
};

void append(std::string& text, std::string_view more, std::string_view between) {
    if (!more.empty()) text += (text.empty() ? "" : std::string(between)) + std::string(more);
}

// All modules were asked.
[[noreturn]] void refuse(std::string_view scheme, const std::vector<Failure>& failures) {
    const std::string wanted = ' ' + std::string(scheme) + ' ';
    std::string known, detail, hint, broken;
    const auto look_into = [&](std::span<const OtherNames> all) {
        for (const OtherNames& other : all) {
            if (other.names.find(wanted) == std::string_view::npos) continue;
            append(detail, other.detail, " ");
            append(hint, other.hint, " ");
        }
    };
    look_into(nobodys);
    for (const auto& [name, module] : loaded()) {
        look_into(module.other_names);
        for (const Scheme& one : module.schemes) append(known, one.name, ", ");
    }
    for (const auto& [name, why] : failures)
        append(broken, name + " (" + (why.detail().empty() ? why.message() : why.detail()) + ")", ", ");
    if (!broken.empty()) append(detail, "Modules that could not be loaded: " + broken + '.', " ");
    append(hint, "Known schemes: " + known + '.', " ");
    throw BadInput("unknown URL scheme \"" + std::string(scheme) + '"', detail, hint);
}

KnownOptions known_options(const Module& module) {
    KnownOptions known = known_broker_options(module.protocol, module.broker_options);
    known.is_elsewhere = module.is_elsewhere;
    return known;
}

}  // namespace

// Of modules that have the same scheme it is the one of that name, or else the first: in each process the same.
const Module* load_module(std::string_view scheme, const std::string& directory) {
    static auto& known = *new std::map<std::string, const Module*, std::less<>>;
    if (const auto found = known.find(scheme); found != known.end()) return found->second;
    searched() = directory;
    const auto is_own = [&](const std::string& name) {
        return scheme == name || (scheme.ends_with('s') && scheme.substr(0, scheme.size() - 1) == name);
    };
    auto all = names_in(directory);
    for (const auto& [name, module] : loaded()) all.insert(name);  // though its file may be gone
    std::vector<std::string> names(all.begin(), all.end());
    std::stable_partition(names.begin(), names.end(), is_own);
    std::vector<Failure> failures;
    for (const auto& name : names) {
        try {
            const Module& module = load(name, directory);
            if (find_scheme(module, scheme) == nullptr) continue;
            known.emplace(scheme, &module);
            return &module;
        } catch (const BadInput& why) {
            failures.push_back({name, why});
        }
    }
    if (!failures.empty() && is_own(failures.front().module)) throw failures.front().why;
    refuse(scheme, failures);
}

BrokerSettings read_broker(std::string_view name, std::string_view url, std::string_view options_json,
                           const std::string& directory, IdleOptions* idle) {
    BrokerSettings settings;
    const std::string scheme_name = url_scheme(url);
    const Module& module = *load_module(scheme_name, directory);
    const Scheme& scheme = *find_scheme(module, scheme_name);
    settings.name = name;
    settings.url = parse_url(url, scheme.port, scheme.has_host);
    const Options options(known_options(module), options_json);
    settings.options = read_broker_options(options);
    if (settings.url.has_password && !settings.options.password_file.empty())
        throw BadInput("the password stands in the URL and in a password_file", {}, "Use one of the two.");
    IdleOptions found;
    find_idle_options(settings, found);
    if (module.read_broker != nullptr) settings.own = module.read_broker(settings, options, found);
    if (idle != nullptr) *idle = found;
    return settings;
}

void check_broker_option(const std::string& name, const Module& module) {
    known_options(module).check(name);
}

}  // namespace eventbus::broker
