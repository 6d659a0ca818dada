// What it is: what all parts of a dispatcher share: the limits, the time of this drive, the dice, the report.
// Who calls it: the dispatcher fills it; link and route queues read it and add to the report.
// Never: has a life of its own.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "delivery/dispatcher.hpp"
#include "delivery/evidence.hpp"
#include "delivery/suspects.hpp"

namespace eventbus::delivery {

struct Context {
    std::string broker_shown;
    DispatcherLimits limits;
    std::uint32_t dice_state = 1;
    TimePoint now{};
    std::int64_t wall_now = 0;
    std::uint64_t moments = 0;
    std::size_t delivered = 0;  // since the dispatcher last looked
    Report report{};
    SuspectSearch caution{};
    std::size_t delivered_before = 0;  // on the link before this one
    std::uint64_t offers = 0;
    Evidence evidence{};        // of all routes
    TimePoint refused_at{};     // something was, the last time
    bool any_suspects = false;  // there may be some; false: there are none
    std::uint64_t moves = 1;    // rises whenever a settled position may have moved

    void moved() { ++moves; }

    std::uint32_t dice() {  // xorshift32
        dice_state ^= dice_state << 13;
        dice_state ^= dice_state >> 17;
        dice_state ^= dice_state << 5;
        return dice_state;
    }
    Moment moment() { return {++moments, wall_now}; }
    void notice(Notice::Level level, std::string text, std::string hint = {}) {
        report.notices.push_back({level, std::move(text), std::move(hint)});
    }
};

inline std::string seconds_text(broker::Clock::duration duration) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f s", std::chrono::duration<double>(duration).count());
    return text;
}

}  // namespace eventbus::delivery
