// What it is: tests of latencies in buckets.
// Who calls it: make -C test/unit core.
// Never: trusts the bounds that the code was written with: they are checked against the promise of 10 %.
#include "core/latency.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace eventbus {
namespace {

TEST(Latency, EveryBucketIsWithinTenPercent) {
    constexpr std::int64_t two_days = std::int64_t{2} * 24 * 3600 * 1000 * 1000;
    std::size_t before = 0;
    for (std::int64_t us = 64; us < two_days; us += std::max<std::int64_t>(1, us / 500)) {
        const auto bucket = latency_bucket(us);
        ASSERT_GE(bucket, before) << us;
        before = bucket;
        const auto shown = static_cast<double>(latency_of(bucket));
        ASSERT_LE(std::abs(shown - static_cast<double>(us)), 0.1 * static_cast<double>(us)) << us;
    }
    EXPECT_LT(before, latency_buckets);
}

TEST(Latency, WhatLiesOutsideGoesToTheEnds) {
    EXPECT_EQ(latency_bucket(INT64_MIN), 0U);
    EXPECT_EQ(latency_bucket(-1), 0U);
    EXPECT_EQ(latency_bucket(0), 0U);
    EXPECT_EQ(latency_bucket(63), 0U);
    EXPECT_EQ(latency_bucket(64), 1U);
    EXPECT_EQ(latency_bucket(INT64_MAX), latency_buckets - 1);
}

TEST(Latency, Percentiles) {
    LatencyCounts counts{};
    EXPECT_EQ(latency_at(counts, 0.5), -1);
    for (std::int64_t ms = 1; ms <= 1000; ++ms) ++counts[latency_bucket(ms * 1000)];
    EXPECT_NEAR(static_cast<double>(latency_at(counts, 0.5)), 500e3, 50e3);
    EXPECT_NEAR(static_cast<double>(latency_at(counts, 0.99)), 990e3, 99e3);
    EXPECT_NEAR(static_cast<double>(latency_at(counts, 0)), 1e3, 100);
    EXPECT_NEAR(static_cast<double>(latency_at(counts, 1)), 1000e3, 100e3);
    LatencyCounts one{};
    one[latency_buckets - 1] = 1;
    EXPECT_EQ(latency_at(one, 0.5), latency_of(latency_buckets - 1));
}

}  // namespace
}  // namespace eventbus
