#include "core/latency.hpp"

#include <cmath>
#include <numeric>

namespace eventbus {

std::int64_t latency_of(std::size_t bucket) {
    if (bucket == 0) return 32;
    return std::llround(64 * std::exp2((static_cast<double>(bucket) - 0.5) / 4));
}

std::int64_t latency_at(const LatencyCounts& counts, double share) {
    const auto total = std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
    if (total == 0) return -1;
    const auto wanted = std::max(1.0, std::ceil(share * static_cast<double>(total)));
    std::uint64_t passed = 0;
    std::size_t bucket = 0;
    for (; bucket + 1 < counts.size(); ++bucket) {
        passed += counts[bucket];
        if (static_cast<double>(passed) >= wanted) break;
    }
    return latency_of(bucket);
}

}  // namespace eventbus
