// What it is: destinations, and the route put together from its texts.
// Who calls it: create_route (to check), the sender (to deliver).
// Never: knows a protocol beyond what its module lists.
#include "router/route.hpp"

#include <algorithm>

#include "core/bad_input.hpp"
#include "core/utf8.hpp"

namespace eventbus::router {

namespace {

std::string known_kinds(const broker::Module& module) {
    std::string text = "Destinations for " + std::string(module.protocol) + " are ";
    for (std::size_t i = 0; i < module.kinds.size(); ++i) {
        if (i > 0) text += i + 1 == module.kinds.size() ? " and " : ", ";
        text += std::string(module.kinds[i]) + ":NAME";
    }
    return text + '.';
}

}  // namespace

Destination parse_destination(std::string_view text, const broker::Module& module) {
    const auto colon = text.find(':');
    // A colon that only belongs to a placeholder is no separator.
    if (colon == std::string_view::npos || text.find('{') < colon) {
        throw BadInput("destination \"" + std::string(text) + "\" has no kind", "A destination has the form kind:name.",
                       known_kinds(module));
    }
    const auto kind = text.substr(0, colon);
    if (std::find(module.kinds.begin(), module.kinds.end(), kind) == module.kinds.end()) {
        throw BadInput("unknown kind of destination \"" + std::string(kind) + '"', {}, known_kinds(module));
    }
    return {std::string(kind), Template(text.substr(colon + 1))};
}

// What is the same for all events can be checked before there are any.
static void check_length(const Template& text, const char* what, const broker::Module& module) {
    const auto length = text.literal().size();
    if (module.longest_name == 0 || length <= module.longest_name) return;
    throw BadInput(std::string(what) + " is too long",
                   "It is " + std::to_string(length) + " bytes long" +
                       (text.is_constant() ? "." : ", what its placeholders stand for not counted."),
                   "The longest that " + std::string(module.protocol) + " takes is " +
                       std::to_string(module.longest_name) + " bytes.");
}

static void check_characters(const Template& name, const broker::Module& module) {
    if (module.flaw_in_name == nullptr) return;
    const auto flaw = module.flaw_in_name(name.literal());
    if (flaw.empty()) return;
    throw BadInput(
        "destination " + flaw,
        "No " + std::string(module.protocol) + " destination may have one: every event would become a dead letter.",
        "Write out the name; placeholders such as {topic/} and {key} stand for what differs between events.");
}

// Before they are taken apart, which takes many times their size.
static std::string_view within_limit(std::string_view patterns) {
    if (patterns.size() <= longest_text) return patterns;
    throw BadInput("topics are too long", "They are " + std::to_string(patterns.size()) + " bytes long.",
                   "The longest list has " + std::to_string(longest_text) + " bytes.");
}

// A route's patterns are UTF-8: of other patterns TopicFilter cannot know.
static void check_patterns(std::string_view patterns) {
    for (std::size_t at = 0; at < patterns.size(); ++at) {
        if (const auto point = character_at(patterns, at).point; point >= 0x80 && is_control(point))
            throw BadInput("invalid topic pattern", "A pattern has no control characters: " + name_of(point) + '.',
                           "Leave the character out: no topic has one.");
    }
}

Route::Route(std::uint32_t route_id, std::string route_name, std::string_view destination_text,
             std::string_view patterns, std::string_view options_json, const broker::Module& module)
    : id(route_id),
      name(std::move(route_name)),
      topics(within_limit(patterns)),
      destination(parse_destination(destination_text, module)) {
    const Options given(known_route_options(module), options_json);
    options = read_route_options(given);
    addressing.kind = destination.kind;
    addressing.varies = !destination.name.is_constant();
    if (module.read_route != nullptr) {
        auto read = module.read_route(destination.kind, given);
        addressing.own = std::move(read.own);
        has_routing_key = read.routing_key.has_value();
        if (has_routing_key && !read.routing_key->empty()) routing_key = Template(*read.routing_key);
    }
    check_patterns(patterns);
    check_length(destination.name, "destination", module);
    check_length(routing_key, "routing key", module);
    check_characters(destination.name, module);
}

}  // namespace eventbus::router
