// What it is: the options of a route: names, types and ranges.
// Who calls it: Route's constructor, and create_route through it.
// Never: knows which protocol has which option; the module says so.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/bad_input.hpp"
#include "core/duration.hpp"
#include "router/route.hpp"

namespace eventbus::router {

namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 5> common_names = {"order", "max_attempts", "max_age", "start", "source"};
constexpr std::array<std::string_view, 6> wal_names = {"tables",   "publication", "operations",
                                                       "messages", "format",      "origin"};
constexpr std::array<std::string_view, 5> protocol_names = {"routing_key", "qos", "retain", "maxlen", "persistent"};

template <typename List>
bool has(const List& list, std::string_view name) {
    return std::find(list.begin(), list.end(), name) != list.end();
}

std::string known_options(const broker::Module& module) {
    std::string text = "Route options for " + std::string(module.protocol) + " are ";
    std::string names;
    const auto add = [&](std::string_view name) {
        if (!names.empty()) names += ", ";
        names += name;
    };
    for (const auto name : common_names) add(name);
    for (const auto name : module.route_options) add(name);
    text += names;
    names.clear();
    for (const auto name : wal_names) add(name);
    return text + "; with \"source\": \"wal\" also " + names + '.';
}

[[noreturn]] void bad_value(std::string_view name, std::string hint) {
    throw BadInput("invalid value for route option \"" + std::string(name) + '"', {}, std::move(hint));
}

std::string text_value(const json& value, std::string_view name, const char* hint) {
    if (!value.is_string()) bad_value(name, hint);
    return value.get<std::string>();
}

// "a, b" or ["a", "b"]; what may stand in it is the source's business.
std::string list_value(const json& value, std::string_view name, const char* hint) {
    if (!value.is_array()) return text_value(value, name, hint);
    std::string list;
    for (const auto& item : value) list += (list.empty() ? "" : ", ") + text_value(item, name, hint);
    return list;
}

void check_words(std::string_view list, std::initializer_list<std::string_view> known, std::string_view name,
                 const char* hint) {
    for (bool last = false; !last;) {
        const auto comma = list.find(',');
        last = comma == std::string_view::npos;
        auto word = list.substr(0, comma);
        while (word.starts_with(' ')) word.remove_prefix(1);
        while (word.ends_with(' ')) word.remove_suffix(1);
        if (std::find(known.begin(), known.end(), word) == known.end()) bad_value(name, hint);
        if (!last) list.remove_prefix(comma + 1);
    }
}

void take_wal(WalOptions& wal, std::string_view name, const json& value) {
    if (name == "tables") {
        wal.tables = list_value(value, name, "It is a list of patterns such as \"public.*, shop.order_?, -shop.old\".");
    } else if (name == "publication") {
        wal.publication = list_value(value, name, "It is the name of a publication, or a list of names.");
    } else if (name == "operations") {
        constexpr const char* hint = "It is a list of insert, update, delete and truncate, such as \"insert, update\".";
        wal.operations = list_value(value, name, hint);
        check_words(*wal.operations, {"insert", "update", "delete", "truncate"}, name, hint);
    } else if (name == "messages") {
        wal.messages = list_value(value, name, "It is a list of patterns such as \"shop.*, -shop.debug\".");
    } else if (name == "format") {
        constexpr const char* hint = "It is \"debezium\", \"wal2json\" or \"row\".";
        wal.format = text_value(value, name, hint);
        if (*wal.format != "debezium" && *wal.format != "wal2json" && *wal.format != "row") bad_value(name, hint);
    } else if (name == "origin") {
        constexpr const char* hint = "It is \"any\" or \"none\".";
        const auto text = text_value(value, name, hint);
        if (text != "any" && text != "none") bad_value(name, hint);
        wal.local_only = text == "none";
    }
}

bool bool_value(const json& value, std::string_view name) {
    if (!value.is_boolean()) bad_value(name, "It is true or false.");
    return value.get<bool>();
}

std::int64_t integer_value(const json& value, std::string_view name, std::int64_t least, std::int64_t most) {
    const bool fits = value.is_number_integer() &&
                      !(value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(most)) &&
                      value.get<std::int64_t>() >= least && value.get<std::int64_t>() <= most;
    if (!fits)
        bad_value(name, "It is a whole number from " + std::to_string(least) + " to " + std::to_string(most) + '.');
    return value.get<std::int64_t>();
}

std::chrono::milliseconds duration_value(const json& value, std::string_view name) {
    constexpr double most_seconds = 100 * 365.25 * 86400;
    double seconds = -1;
    if (value.is_number()) seconds = value.get<double>();
    if (value.is_string()) seconds = read_duration(value.get_ref<const std::string&>()).value_or(-1);
    if (!(seconds >= 0.001 && seconds <= most_seconds)) bad_value(name, std::string("It is ") + duration_form + '.');
    return std::chrono::milliseconds(std::llround(seconds * 1000));
}

void take(RouteOptions& options, std::string_view name, const json& value) {
    if (name == "order") {
        const auto text = text_value(value, name, "It is \"key\" or \"strict\".");
        if (text != "key" && text != "strict") bad_value(name, "It is \"key\" or \"strict\".");
        options.order = text == "strict" ? Order::strict : Order::key;
    } else if (name == "start") {
        const auto text = text_value(value, name, "It is \"now\" or \"earliest\".");
        if (text != "now" && text != "earliest") bad_value(name, "It is \"now\" or \"earliest\".");
        options.earliest = text == "earliest";
    } else if (name == "source") {
        const auto text = text_value(value, name, "It is \"log\" or \"wal\".");
        if (text != "log" && text != "wal") bad_value(name, "It is \"log\" or \"wal\".");
        options.from_wal = text == "wal";
    } else if (name == "max_attempts") {
        constexpr auto most = std::numeric_limits<std::int32_t>::max();
        options.max_attempts = static_cast<std::uint32_t>(integer_value(value, name, 1, most));
    } else if (name == "max_age") {
        options.max_age = duration_value(value, name);
    } else if (name == "routing_key") {
        options.routing_key = text_value(value, name, "It is a template, such as \"{topic}\".");
    } else if (name == "qos") {
        options.qos = static_cast<int>(integer_value(value, name, 0, 2));
    } else if (name == "retain") {
        options.retain = bool_value(value, name);
    } else if (name == "maxlen") {
        options.maxlen = integer_value(value, name, 0, std::numeric_limits<std::int64_t>::max());
    } else if (name == "persistent") {
        options.persistent = bool_value(value, name);
    }
}

}  // namespace

void check_route_option(const std::string& name, const broker::Module& module) {
    if (has(protocol_names, name) && !has(module.route_options, name))
        throw BadInput("route option \"" + name + "\" is not for " + module.protocol, {}, known_options(module));
    if (!has(protocol_names, name) && !has(common_names, name) && !has(wal_names, name))
        throw BadInput("unknown route option \"" + name + '"', {}, known_options(module));
}

RouteOptions read_route_options(std::string_view options_json, const broker::Module& module) {
    const auto object = json::parse(options_json, nullptr, false);
    if (object.is_discarded() && options_json.starts_with('{'))
        throw BadInput("route options hold a number out of range", {}, known_options(module));
    if (!object.is_object()) throw BadInput("route options must be a JSON object", {}, known_options(module));
    RouteOptions options;
    bool wants_wal = false;
    for (const auto& [name, value] : object.items()) {
        check_route_option(name, module);
        if (has(wal_names, name)) {
            wants_wal = true;
            take_wal(options.wal, name, value);
            continue;
        }
        take(options, name, value);
    }
    if (wants_wal && !options.from_wal)
        throw BadInput(
            "route options tables, publication, operations, messages, format and origin are for routes from "
            "the WAL",
            {}, "Add \"source\": \"wal\".");
    if (options.from_wal && options.earliest)
        throw BadInput("a route from the WAL cannot start with \"earliest\"",
                       "What was written before its slot was made cannot be decoded.", "Leave \"start\" out.");
    return options;
}

}  // namespace eventbus::router
