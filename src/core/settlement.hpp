// What it is: the vocabulary of outcomes: what became of a ticket, and what is to be done about it.
// Who calls it: drivers make settlements, delivery acts on them.
// Never: says how to retry; that is delivery's business.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace eventbus {

enum class Verdict : std::uint8_t {
    delivered,  // surely yes
    refused,    // surely no
    unknown,    // cannot know: the link broke before the broker answered
};

// The scope of a failure decides the remedy.
enum class Remedy : std::uint8_t {
    none,
    retry,  // the event's key waits and is tried again
    park,   // the event goes to the dead letters
    // The route is held until somebody fixes the broker's or the route's settings. With `delivered`: the event has
    // arrived, but not as the route's options want it.
    fix_settings,
    // These two tell no scope: delivery finds it from what else the route delivers meanwhile.
    forbidden,  // the broker forbids this message's own name: a routing key, a topic, a key
    unclear,    // an answer that is not known for permanent
};

struct Settlement {
    std::uint64_t ticket = 0;
    Verdict verdict = Verdict::unknown;
    Remedy remedy = Remedy::none;
    std::string reason;  // the broker's own words; empty when delivered
};

// What a driver's settle() does: hands over what stands in `from` behind the first `taken`; where all is handed over,
// `from` is empty again. Returns how many were written.
inline std::size_t drain(std::vector<Settlement>& from, std::size_t& taken, std::span<Settlement> out) {
    const std::size_t count = std::min(out.size(), from.size() - taken);
    const auto first = from.begin() + static_cast<std::ptrdiff_t>(taken);
    std::move(first, first + static_cast<std::ptrdiff_t>(count), out.begin());
    taken += count;
    if (taken == from.size()) {
        from.clear();
        taken = 0;
    }
    return count;
}

}  // namespace eventbus
