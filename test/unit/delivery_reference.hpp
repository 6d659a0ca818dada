// What it is: what the model test knows of routes, events, parked keys and streams, in the plainest form.
// Who calls it: delivery_model_test.cpp.
// Never: is clever.
#pragma once

#include <algorithm>

#include "delivery_world.hpp"

namespace eventbus::test {

struct Expected {  // what the reference knows of an event on a route
    std::string key;
    std::size_t at = 0;  // in its log
    unsigned offers = 0;
    unsigned refusals = 0;
    bool open = false;
    bool waits = false;  // refused for now, and not settled since
    bool settled = false;
    delivery::ChunkId chunk = 0;       // in which it was last lent for this route; 0: none
    Remedy remedy = Remedy::none;      // of the last refusal
    broker::TimePoint refused_at{};    // for the first time
    std::size_t delivered_before = 0;  // by the broker, when it was first offered
};

struct Aside {  // a parked key, and the host's part of it
    delivery::ParkedKeyId number = 0;
    unsigned stream = 0;
    delivery::ParkedKey takes;
    std::size_t known = 0;  // what was in the log when it was loaded
    bool ended = false;
    std::size_t behind = 0;  // where it met its route

    bool has(std::int64_t id, const Expected& event) const {
        if (ended && event.at >= behind) return false;
        return takes.key
                   ? event.key == *takes.key
                   : std::ranges::binary_search(takes.events, id, {}, [](const EventId& it) { return number_of(it); });
    }
};

struct Mirror {  // a route as the reference sees it
    std::uint32_t id = 0;
    unsigned log = 0;
    unsigned stream = 1;
    std::string topic;  // "#" or one topic
    bool strict = false;
    unsigned max_attempts = 0;
    bool removed = false;
    std::map<std::int64_t, Expected> events;
    std::vector<Aside> asides;

    const Aside* aside_of(std::int64_t id) const {
        const auto& event = events.at(id);
        for (const auto& aside : asides) {
            if (aside.has(id, event)) return &aside;
        }
        return nullptr;
    }
};

struct Source {  // a stream's reader
    unsigned log = 0;
    std::size_t at = 0;                                          // what is read next
    std::map<delivery::ChunkId, std::vector<std::size_t>> lent;  // places of events
};

}  // namespace eventbus::test
