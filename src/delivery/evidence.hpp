// What it is: what tells one event's own trouble from its route's or its broker's: what else is delivered meanwhile.
// Who calls it: route queues, at each answer; one evidence for the broker, one for a route with its parked keys.
// Never: takes the delivery of what was offered earlier for a proof: it may have been on its way already.
#pragma once

#include <algorithm>
#include <cstdint>

#include "broker/driver.hpp"

namespace eventbus::delivery {

// Offers of a dispatcher are counted from 1.
class Evidence {
 public:
    void delivered(std::uint64_t offer) {
        last_ = std::max(last_, offer);
        first_refused_ = 0;
        all_refused_ = false;
    }
    // whose: a key, or an event without one; not 0
    void refused(std::uint64_t whose) {
        if (first_refused_ == 0) first_refused_ = whose;
        all_refused_ |= first_refused_ != whose;
    }
    bool delivered_after(std::uint64_t offer) const { return last_ > offer; }
    // Several were refused since anything was delivered.
    bool all_refused() const { return all_refused_; }
    std::uint64_t last() const { return last_; }

 private:
    std::uint64_t last_ = 0;  // the latest offer that was delivered
    std::uint64_t first_refused_ = 0;
    bool all_refused_ = false;
};

// How an event has fared since it was first refused.
struct Trial {
    std::uint64_t begun = 0;            // the offer with which the trouble of its key began; 0: none was refused
    std::uint64_t first = 0;            // its own that was refused first
    std::uint64_t latest = 0;           // and last
    std::uint32_t counted = 0;          // attempts while others were delivered
    bool counts = false;                // the last attempt does
    bool first_is_open = false;         // whether the first attempt counts will be known at the second
    broker::TimePoint since{};          // of the first refusal
    broker::TimePoint counted_since{};  // of the first attempt that counts
};

}  // namespace eventbus::delivery
