// What it is: exponential back-off with jitter.
// Who calls it: delivery for links, routes and events; the worker room for its children.
// Never: sleeps or reads a clock; it only says how long to wait.
#pragma once

#include <chrono>
#include <cstdint>

namespace eventbus {

class Backoff {
 public:
    using Duration = std::chrono::milliseconds;

    constexpr Backoff(Duration first, Duration most) : first_(first), most_(most) {}

    // The next pause: first, 2*first, 4*first … up to most, each scaled by `dice` into [1/2, 1].
    constexpr Duration next(std::uint32_t dice) {
        Duration whole = first_;
        for (unsigned i = 0; i < attempts_ && whole < most_; ++i) whole *= 2;
        if (whole > most_) whole = most_;
        ++attempts_;
        const auto half = whole.count() / 2;
        return Duration(whole.count() - half + (half > 0 ? dice % (half + 1) : 0));
    }

    constexpr void reset() { attempts_ = 0; }
    constexpr unsigned attempts() const { return attempts_; }

 private:
    Duration first_;
    Duration most_;
    unsigned attempts_ = 0;
};

}  // namespace eventbus
