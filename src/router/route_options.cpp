// What it is: the options that routes of all protocols have: names, types and ranges.
// Who calls it: Route's constructor, and create_route through it.
// Never: knows a protocol's option.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/bad_input.hpp"
#include "core/duration.hpp"
#include "router/route.hpp"

namespace eventbus::router {

namespace {

constexpr std::array<std::string_view, 5> common_names = {"order", "max_attempts", "max_age", "start", "source"};
constexpr std::array<std::string_view, 6> wal_names = {"tables",   "publication", "operations",
                                                       "messages", "format",      "origin"};

std::chrono::milliseconds duration(const Option& option) {
    constexpr double most_seconds = 100 * 365.25 * 86400;
    const double seconds = option.seconds();
    if (!(seconds >= 0.001 && seconds <= most_seconds)) option.must_be(duration_form);
    return std::chrono::milliseconds(std::llround(seconds * 1000));
}

std::string operations(const Option& option) {
    constexpr const char* form = "a list of insert, update, delete and truncate, such as \"insert, update\"";
    constexpr std::array<std::string_view, 4> known = {"insert", "update", "delete", "truncate"};
    std::string all = option.list(form);
    std::string_view list = all;
    for (bool last = false; !last;) {
        const auto comma = list.find(',');
        last = comma == std::string_view::npos;
        auto word = list.substr(0, comma);
        while (word.starts_with(' ')) word.remove_prefix(1);
        while (word.ends_with(' ')) word.remove_suffix(1);
        if (std::find(known.begin(), known.end(), word) == known.end()) option.must_be(form);
        if (!last) list.remove_prefix(comma + 1);
    }
    return all;
}

// What may stand in lists is the source's business.
WalOptions read_wal_options(const Options& options) {
    WalOptions wal;
    if (const auto given = options.find("tables"))
        wal.tables = given->list("a list of patterns such as \"public.*, shop.order_?, -shop.old\"");
    if (const auto given = options.find("publication"))
        wal.publication = given->list("the name of a publication, or a list of names");
    if (const auto given = options.find("operations")) wal.operations = operations(*given);
    if (const auto given = options.find("messages"))
        wal.messages = given->list("a list of patterns such as \"shop.*, -shop.debug\"");
    if (const auto given = options.find("format")) {
        static_cast<void>(given->one_of({"debezium", "wal2json", "row"}));
        wal.format = given->text({});
    }
    if (const auto given = options.find("origin")) wal.local_only = given->one_of({"any", "none"}) == 1;
    return wal;
}

}  // namespace

KnownOptions known_route_options(const broker::Module& module) {
    KnownOptions known{OptionsOf::route,
                       module.protocol,
                       {common_names, module.route_options, wal_names},
                       "Route options for " + std::string(module.protocol) + " are ",
                       module.is_elsewhere};
    const auto add = [&](OptionNames names, std::string_view before) {
        for (const auto name : names) known.hint += std::string(std::exchange(before, ", ")) + std::string(name);
    };
    add(common_names, "");
    add(module.route_options, ", ");
    add(wal_names, "; with \"source\": \"wal\" also ");
    known.hint += '.';
    return known;
}

RouteOptions read_route_options(const Options& options) {
    RouteOptions read;
    if (const auto given = options.find("order"))
        read.order = given->one_of({"key", "strict"}) == 1 ? Order::strict : Order::key;
    if (const auto given = options.find("start")) read.earliest = given->one_of({"now", "earliest"}) == 1;
    if (const auto given = options.find("source")) read.from_wal = given->one_of({"log", "wal"}) == 1;
    if (const auto given = options.find("max_attempts"))
        read.max_attempts =
            static_cast<std::uint32_t>(given->whole_number(1, std::numeric_limits<std::int32_t>::max()));
    if (const auto given = options.find("max_age")) read.max_age = duration(*given);
    read.wal = read_wal_options(options);
    const bool wants_wal = std::any_of(wal_names.begin(), wal_names.end(),
                                       [&](std::string_view name) { return options.find(name).has_value(); });
    if (wants_wal && !read.from_wal)
        throw BadInput(
            "route options tables, publication, operations, messages, format and origin are for routes from "
            "the WAL",
            {}, "Add \"source\": \"wal\".");
    if (read.from_wal && read.earliest)
        throw BadInput("a route from the WAL cannot start with \"earliest\"",
                       "What was written before its slot was made cannot be decoded.", "Leave \"start\" out.");
    return read;
}

}  // namespace eventbus::router
