#include "counters/pace.hpp"

#include <algorithm>

namespace eventbus::counters {

namespace {

constexpr int64 stretch_us = 10 * USECS_PER_SEC;
constexpr int64 minute_us = 60 * USECS_PER_SEC;

template <class Place, int count>
Place& current(Place (&ring)[count], int64 number) {
    Place& place = ring[number % count];
    if (place.number != number) place = {number, {}};
    return place;
}

template <class Place, int count>
bool is_recent(const Place (&)[count], const Place& place, int64 number) {
    return place.number > number - count && place.number <= number;
}

}  // namespace

void count_delivered(Pace* pace, SteadyTime now, uint64 events, const LatencyCounts& latencies) {
    if (events == 0) return;
    current(pace->stretches, now / stretch_us).delivered += events;
    LatencyCounts& counts = current(pace->minutes, now / minute_us).latencies;
    for (Size i = 0; i < counts.size(); ++i) counts[i] += latencies[i];
}

ShownPace show_pace(const Pace& pace, SteadyTime now) {
    uint64 events = 0;
    for (const Pace::Stretch& stretch : pace.stretches)
        if (is_recent(pace.stretches, stretch, now / stretch_us)) events += stretch.delivered;
    LatencyCounts latencies = {};
    for (const Pace::Minute& minute : pace.minutes)
        if (is_recent(pace.minutes, minute, now / minute_us))
            for (Size i = 0; i < latencies.size(); ++i) latencies[i] += minute.latencies[i];
    auto covered = static_cast<double>(minute_us + now % stretch_us);
    return {static_cast<double>(events) * USECS_PER_SEC / covered, latency_at(latencies, 0.5),
            latency_at(latencies, 0.99)};
}

}  // namespace eventbus::counters
