// What it is: tests of durations as people write them.
// Who calls it: core_tests.
// Never: needs a clock.
#include <gtest/gtest.h>

#include "core/duration.hpp"

using eventbus::read_duration;

TEST(Duration, IsReadAsPeopleWriteIt) {
    const std::pair<const char*, double> good[] = {{"0", 0},
                                                   {"90", 90},
                                                   {"1.5", 1.5},
                                                   {"250ms", 0.25},
                                                   {"90 s", 90},
                                                   {" 15  minutes ", 900},
                                                   {"15 min", 900},
                                                   {"15m", 900},
                                                   {"1 hour", 3600},
                                                   {"1 Hour 30 MIN", 5400},
                                                   {"1h30m", 5400},
                                                   {"0.5 h", 1800},
                                                   {"2 days", 172800},
                                                   {"1 week", 604800},
                                                   {"00:15:00", 900},
                                                   {"1:30", 5400},
                                                   {"100:00:01.5", 360001.5}};
    for (const auto& [text, seconds] : good) {
        const auto read = read_duration(text);
        ASSERT_TRUE(read) << text;
        EXPECT_DOUBLE_EQ(*read, seconds) << text;
    }
}

TEST(Duration, IsNothingElse) {
    for (const char* text : {"",      " ",        "s",     "minutes", "-1",   "-1 s",         "+1 s",    "1 s -2 s",
                             "inf",   "infinity", "nan",   "1e3 s",   "0x10", "5 fortnights", "1 month", "1 year",
                             "1 s 2", "1 2",      "1,5 s", "15 min.", "1:",   ":30",          "1:2:3:4", "1:60",
                             "1:5",   "1:30 h",   "::",    "1 s\n",   "٣ s",  "s 1",          "ms s"})
        EXPECT_FALSE(read_duration(text)) << text;
    EXPECT_FALSE(read_duration(std::string_view("1 s\0", 4)));
}
