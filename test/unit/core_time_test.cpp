// What it is: tests of back-off and of RFC 3339 times.
// Who calls it: make -C test/unit core.
// Never: reads a clock or sleeps.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <string>

#include "core/backoff.hpp"
#include "core/time_text.hpp"

using namespace eventbus;

namespace {

std::string text_of(std::int64_t unix_us) {
    std::array<char, rfc3339_length> buffer;
    return std::string(rfc3339(unix_us, buffer));
}

}  // namespace

TEST(TimeText, KnownTimes) {
    EXPECT_EQ(text_of(0), "1970-01-01T00:00:00.000000Z");
    EXPECT_EQ(text_of(1'795'150'380'123'456), "2026-11-20T04:53:00.123456Z");
    EXPECT_EQ(text_of(951'782'399'999'999), "2000-02-28T23:59:59.999999Z");
    EXPECT_EQ(text_of(951'782'400'000'000), "2000-02-29T00:00:00.000000Z");
    EXPECT_EQ(text_of(-1), "1969-12-31T23:59:59.999999Z");
    EXPECT_EQ(text_of(-2'203'891'200'000'000), "1900-03-01T00:00:00.000000Z");
}

TEST(TimeText, EndsOfTheFormat) {
    EXPECT_EQ(text_of(std::numeric_limits<std::int64_t>::max()), "9999-12-31T23:59:59.999999Z");
    EXPECT_EQ(text_of(std::numeric_limits<std::int64_t>::min()), "0000-01-01T00:00:00.000000Z");
}

TEST(TimeText, IsReadBack) {
    for (const std::int64_t time : {0L, 1'795'150'380'123'456L, 951'782'400'000'000L, -1L, -62'167'219'200'000'000L})
        EXPECT_EQ(unix_us_of(text_of(time)), time);
    for (const char* text :
         {"", "2026-11-20T04:53:00Z", "2026-11-20 04:53:00.123456Z", "2026-11-20T04:53:00.12345xZ",
          "2026-13-20T04:53:00.123456Z", "2026-02-30T04:53:00.123456Z", "-026-11-20T04:53:00.123456Z"})
        EXPECT_EQ(unix_us_of(text), std::nullopt) << text;
}

TEST(Backoff, DoublesUpToItsMost) {
    Backoff backoff(Backoff::Duration(100), Backoff::Duration(1000));
    const std::uint32_t highest = 50;  // of first's half
    EXPECT_EQ(backoff.next(highest).count(), 100);
    EXPECT_EQ(backoff.next(100).count(), 200);
    EXPECT_EQ(backoff.next(200).count(), 400);
    EXPECT_EQ(backoff.next(400).count(), 800);
    EXPECT_EQ(backoff.next(500).count(), 1000);
    EXPECT_EQ(backoff.next(500).count(), 1000);
    EXPECT_EQ(backoff.attempts(), 6u);
    backoff.reset();
    EXPECT_EQ(backoff.next(0).count(), 50);
}

TEST(Backoff, JitterStaysInItsHalf) {
    for (std::uint32_t dice = 0; dice < 5000; dice += 7) {
        Backoff backoff(Backoff::Duration(333), Backoff::Duration(60000));
        const auto pause = backoff.next(dice).count();
        EXPECT_GE(pause, 333 - 333 / 2);
        EXPECT_LE(pause, 333);
    }
}

TEST(Backoff, ManyAttemptsDoNotOverflow) {
    Backoff backoff(Backoff::Duration(1), Backoff::Duration(60000));
    for (int i = 0; i < 100000; ++i) ASSERT_LE(backoff.next(0xffffffff).count(), 60000);
}
