// What it is: latencies counted in buckets whose bounds grow by a fourth root of two, and percentiles of them.
// Who calls it: delivery counts, status shows.
// Never: is more than 10 % off, from 64 us to two days; what lies outside goes to the first or last bucket.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace eventbus {

inline constexpr std::size_t latency_buckets = 128;
using LatencyCounts = std::array<std::uint32_t, latency_buckets>;

inline std::size_t latency_bucket(std::int64_t microseconds) {
    constexpr std::int64_t first = 64;
    if (microseconds < first) return 0;
    const auto value = static_cast<std::uint64_t>(microseconds);
    const auto width = static_cast<unsigned>(std::bit_width(value));
    // The value's first 16 bits, against 2^15 times the first three powers of the root.
    const auto head = width > 16 ? value >> (width - 16) : value << (16 - width);
    const std::size_t quarter = static_cast<std::size_t>(head >= 38968) + static_cast<std::size_t>(head >= 46341) +
                                static_cast<std::size_t>(head >= 55109);
    return std::min<std::size_t>(1 + (width - 7) * std::size_t{4} + quarter, latency_buckets - 1);
}

// The middle of a bucket.
std::int64_t latency_of(std::size_t bucket);

// The latency, in microseconds, that `share` (0 to 1) of what was counted did not exceed; -1 where nothing was.
std::int64_t latency_at(const LatencyCounts& counts, double share);

}  // namespace eventbus
