// What it is: a route: which topics go to which destination, with its options, parsed and checked once.
// Who calls it: create_route (to check), delivery (to match and to address).
// Never: knows a protocol; which kinds and options are valid is told by the broker's module.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/driver.hpp"
#include "core/event.hpp"
#include "core/options.hpp"

namespace eventbus::router {

enum class Order : std::uint8_t {
    key,     // events of one key are offered in order, several may be under way
    strict,  // at most one open ticket per key
};

// What a route from the WAL takes, before its topics are looked at; lists as the output plugin reads them.
struct WalOptions {
    std::optional<std::string> tables;
    std::optional<std::string> publication;
    std::optional<std::string> operations;
    std::optional<std::string> messages;
    std::optional<std::string> format;
    bool local_only = false;  // "origin": "none"
};

// The options that routes of all protocols have.
struct RouteOptions {
    Order order = Order::key;
    std::uint32_t max_attempts = 0;                    // 0: no limit
    std::optional<std::chrono::milliseconds> max_age;  // since published_at
    bool earliest = false;                             // "start": "earliest"
    bool from_wal = false;                             // "source": "wal"
    WalOptions wal;
};

// Which options a route has: the common ones, and its protocol's.
KnownOptions known_route_options(const broker::Module& module);

RouteOptions read_route_options(const Options& options);  // throws BadInput

// 1 to 255 bytes, words joined by dots, no empty word, none of * # + and no control characters; else BadInput.
void check_topic(std::string_view topic);

// Comma-separated patterns in AMQP's language: words joined by dots, `*` one word, `#` zero or more.
class TopicFilter {
 public:
    explicit TopicFilter(std::string_view patterns);  // throws BadInput
    bool matches(std::string_view topic) const;
    bool matches_everything() const { return everything_; }
    std::size_t size() const { return patterns_.size(); }
    std::string_view pattern(std::size_t i) const { return patterns_[i].text; }  // trimmed

 private:
    struct Pattern {
        std::string text;
        std::vector<std::string> words;  // empty where the text has no wildcard: it is compared as a whole
    };
    std::vector<Pattern> patterns_;
    bool everything_ = false;
};

// Of a name that a template makes, of a template and of a list of patterns, in bytes. Redis knows no limit, but a
// header of 1 MB may stand in a template again and again.
inline constexpr std::size_t longest_text = 64 * 1024;

// Text with {topic}, {topic/} (dots become slashes), {key} (empty where there is none), {header:NAME}.
// {{ and }} stand for the braces themselves.
class Template {
 public:
    Template() = default;
    explicit Template(std::string_view text);  // throws BadInput that lists the placeholders
    bool is_constant() const { return constant_; }
    // The result is a view of `scratch`, of the template or of the event. Of one longer than longest_text there is no
    // more than shows that it is.
    std::string_view render(const Event& event, std::string& scratch) const;
    std::string literal() const;  // what it has besides placeholders: every event's name has that

 private:
    enum class Part : std::uint8_t { text, topic, topic_slashes, key, header };
    struct Piece {
        Part part;
        std::string text;  // the text itself, or the header's name
    };
    std::vector<Piece> pieces_;
    bool constant_ = true;
};

// "kind:template"
struct Destination {
    std::string kind;
    Template name;
};
Destination parse_destination(std::string_view text, const broker::Module& module);  // throws BadInput

// Everything that delivery needs of a route.
struct Route {
    Route(std::uint32_t id, std::string name, std::string_view destination, std::string_view topics,
          std::string_view options_json, const broker::Module& module);  // throws BadInput

    std::uint32_t id;
    std::string name;
    TopicFilter topics;
    Destination destination;
    RouteOptions options;
    broker::Addressing addressing;
    bool has_routing_key = false;
    Template routing_key;
};

}  // namespace eventbus::router
