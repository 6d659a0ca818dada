// What it is: the clock for everything that takes or waits a time: nobody sets it, and all processes have the same.
// Who calls it: every host room; guests are given std::chrono::steady_clock, which is the same clock.
// Never: tells what time it is: a moment that is shown, or compared with an event's, is GetCurrentTimestamp()'s.
#pragma once

#include <algorithm>
#include <ctime>

#include "postgres/prelude.hpp"

namespace eventbus {

// Microseconds, also in shared memory. 0 is long ago, however short the machine has been up.
using SteadyTime = int64;

inline SteadyTime steady_now() {
    constexpr int64 long_ago_us = INT64CONST(1000000000000000);
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return long_ago_us + now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}

inline SteadyTime plus_ms(SteadyTime time, int64 milliseconds) {
    return time + milliseconds * 1000;
}
inline bool ms_have_passed(SteadyTime since, SteadyTime now, int64 milliseconds) {
    return now - since >= milliseconds * 1000;
}
// Rounded up, so that who waits so long is not too early; 0 where that is over.
inline long ms_between(SteadyTime from, SteadyTime to) {
    return to <= from ? 0 : static_cast<long>((to - from + 999) / 1000);
}
// How long to wait: nothing where it is negative, a hundred years at most.
inline int64 microseconds_of(const Interval* interval) {
    constexpr int64 longest_us = INT64CONST(36500) * USECS_PER_DAY;
    double whole = (static_cast<double>(interval->month) * DAYS_PER_MONTH + interval->day) * USECS_PER_DAY +
                   static_cast<double>(interval->time);
    return static_cast<int64>(std::clamp<double>(whole, 0, static_cast<double>(longest_us)));
}
inline long ms_until(SteadyTime time) {
    return ms_between(steady_now(), time);
}

}  // namespace eventbus
