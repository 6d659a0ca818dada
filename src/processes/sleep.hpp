// What it is: the one place that sleeps.
// Who calls it: launcher, keeper and sender, at the end of each round.
// Never: sleeps in a transaction.
#pragma once

#include <cstdint>

#include "postgres/compat.hpp"
#include "postgres/steady.hpp"

namespace eventbus::processes {

// Until the latch is set or milliseconds have gone by (negative: however long it takes). Ends with the latch reset.
void sleep_on_latch(long milliseconds, const char* wait_event);

// The same with a descriptor to wait for. Its number tells it from another one that the system has given the same fd.
struct Descriptor {
    int fd = -1;  // none
    std::uint64_t number = 0;
    bool read = false;
    bool write = false;
};
struct Readiness {
    bool latch = false;
    bool read = false;
    bool write = false;
};
Readiness sleep_on(const Descriptor& descriptor, long milliseconds, const char* wait_event);

// A moment that nothing ends early: to let events gather when they come faster than is worth waking up for.
inline constexpr long linger_us = 500;
void linger(long microseconds);

// Waking up for each of many commits costs those who commit more than it gains: a process that is awake takes its own
// time over them.
class Rush {
 public:
    // Whether so many come, of which there have been `commits` by now, that it should linger.
    bool is_on(std::uint64_t commits);

 private:
    SteadyTime since_ = 0;
    std::uint64_t commits_ = 0;
    bool on_ = false;
};

}  // namespace eventbus::processes
