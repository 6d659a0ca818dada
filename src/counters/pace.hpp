// What it is: how fast a route delivers: events of the last minute, latencies of the last minutes.
// Who calls it: the sender counts, the status functions show.
// Never: locks; it is part of a route's place, whose spinlock is its caller's business.
#pragma once

#include "core/latency.hpp"
#include "postgres/steady.hpp"

namespace eventbus::counters {

// Rings whose places are taken again when their time comes round, so that what is old falls out by itself.
struct Pace {
    struct Stretch {  // ten seconds
        int64 number;
        uint64 delivered;
    };
    struct Minute {
        int64 number;
        LatencyCounts latencies;
    };
    Stretch stretches[7];
    Minute minutes[5];
};

void count_delivered(Pace* pace, SteadyTime now, uint64 events, const LatencyCounts& latencies);

struct ShownPace {
    double throughput;  // events a second over the last 60 to 70 seconds
    int64 latency_p50;  // microseconds over the last four to five minutes; -1: nothing was delivered
    int64 latency_p99;
};
ShownPace show_pace(const Pace& pace, SteadyTime now);

}  // namespace eventbus::counters
