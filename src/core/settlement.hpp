// What it is: the vocabulary of outcomes: what became of a ticket, and what is to be done about it.
// Who calls it: drivers make settlements, delivery acts on them.
// Never: says how to retry; that is delivery's business.
#pragma once

#include <cstdint>
#include <string>

namespace eventbus {

enum class Verdict : std::uint8_t {
    delivered,  // surely yes
    refused,    // surely no
    unknown,    // cannot know: the link broke before the broker answered
};

// The scope of a failure decides the remedy.
enum class Remedy : std::uint8_t {
    none,
    retry,         // the event's key waits and is tried again
    park,          // the event goes to the dead letters
    fix_settings,  // the route is held until somebody mends the broker's or the route's settings
};

struct Settlement {
    std::uint64_t ticket = 0;
    Verdict verdict = Verdict::unknown;
    Remedy remedy = Remedy::none;
    std::string reason;  // the broker's own words; empty when delivered
};

}  // namespace eventbus
