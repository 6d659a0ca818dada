// What it is: a parked key: the part of a route that the broker refuses for long, and that is delivered beside the route.
// Who calls it: route queues part with one and serve it; the host keeps it in the route's cursors.
// Never: knows a stream: where a parked key begins and when it has caught up is the host's to know.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "broker/driver.hpp"
#include "core/backoff.hpp"
#include "core/event.hpp"
#include "delivery/evidence.hpp"
#include "delivery/suspects.hpp"

namespace eventbus::delivery {

struct ParkedKey {
    // All events of a key; or these events, which have none.
    std::optional<std::string> key;
    std::vector<EventId> events;  // rising
    // Those of them that are settled although the parked key begins before them.
    std::vector<EventId> settled;  // rising

    std::uint64_t trouble = 0;  // the key's: the offer with which it began; not kept over a restart

    struct Tried {  // what the route knew of an event that is not settled; not kept over a restart
        std::uint32_t offered;
        std::uint32_t refused;
        Suspicion suspicion;
        Trial trial;
        broker::TimePoint not_before;
        Backoff backoff;
        std::string reason;
    };
    std::unordered_map<EventId, Tried> tried;

    bool takes(const Event& event) const {
        if (key) return event.key && *event.key == *key;
        return !event.key && std::binary_search(events.begin(), events.end(), event.id);
    }
};

}  // namespace eventbus::delivery
