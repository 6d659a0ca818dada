// What it is: what a route passes over because it is parked.
// Who calls it: RouteQueue, as it walks along its feed.
// Never: forgets a key before the route has passed what the key's parked key has settled.
#pragma once

#include <functional>
#include <limits>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "delivery/feed.hpp"
#include "delivery/key_lines.hpp"
#include "delivery/parked_key.hpp"

namespace eventbus::delivery {

class PassedOver {
 public:
    bool empty() const { return keys_.empty() && events_.empty(); }
    void add(const ParkedKey& parked_key) {
        if (parked_key.key) keys_[*parked_key.key] = for_ever;
        events_.insert(parked_key.events.begin(), parked_key.events.end());
    }
    // The route takes the key again, from `until` on.
    void end(const ParkedKey& parked_key, Place until) {
        if (parked_key.key) keys_[*parked_key.key] = until;
    }
    void forget(const ParkedKey& parked_key) {
        for (const auto id : parked_key.events) events_.erase(id);
    }
    // The route has passed all that is lent.
    void at_end() {
        std::erase_if(keys_, [](const auto& key) { return key.second != for_ever; });
    }
    bool has(const Event& event, Place at) const {
        if (!event.key) return events_.count(event.id) > 0;
        const auto found = keys_.find(*event.key);
        return found != keys_.end() && at < found->second;
    }
    // The same as the route comes to it.
    bool passes(const Event& event, Place at) {
        if (!event.key) return events_.count(event.id) > 0;
        const auto found = keys_.find(*event.key);
        if (found == keys_.end()) return false;
        if (at < found->second) return true;
        keys_.erase(found);
        return false;
    }

 private:
    static constexpr Place for_ever{std::numeric_limits<std::uint64_t>::max(), 0};
    std::unordered_map<std::string, Place, KeyHash, std::equal_to<>> keys_;  // and until where
    std::unordered_set<EventId> events_;
};

}  // namespace eventbus::delivery
