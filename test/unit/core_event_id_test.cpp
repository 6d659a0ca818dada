// What it is: unit tests of event ids: as texts, in their order, as keys.
// Who calls it: make -C test/unit core.
// Never: needs a server.
#include <gtest/gtest.h>

#include <string>
#include <type_traits>
#include <unordered_set>

#include "core/event_id.hpp"

namespace eventbus {
namespace {

std::string text_of(const EventId& id) {
    EventIdText text;
    return std::string(to_text(id, text));
}

TEST(EventId, OfTheLogIsItsNumber) {
    EXPECT_EQ(text_of(EventId::of_log(42)), "42");
    EXPECT_EQ(read_event_id("42"), EventId::of_log(42));
    EXPECT_EQ(read_event_id("-42"), EventId::of_log(-42));
    EXPECT_TRUE(EventId::of_log(42).is_of_log());
}

TEST(EventId, OfTheWalIsCommitAndNumber) {
    EXPECT_EQ(text_of({0x16B3748, 7}), "0/16B3748-7");
    EXPECT_EQ(text_of({0xABC00000DEF, 7}), "ABC/DEF-7");
    EXPECT_FALSE((EventId{0x16B3748, 7}.is_of_log()));
}

TEST(EventId, ReadsWhatItWrites) {
    for (const EventId id : {EventId{1, 1}, EventId{UINT64_MAX, INT64_MAX}, EventId{0xABCDEF0123456789, 12}, EventId{},
                             EventId::of_log(INT64_MIN), EventId::of_log(INT64_MAX)})
        EXPECT_EQ(read_event_id(text_of(id)), id);
}

TEST(EventId, ReadsWhatPeopleWrite) {
    for (const char* text : {" 17", "17\n", "\t17 ", "+17", "017"})
        EXPECT_EQ(read_event_id(text), EventId::of_log(17)) << text;
    for (const char* text : {" 0/16B3748-3", "0/16b3748-3", "0/016B3748-3 ", "00000000/016B3748-03"})
        EXPECT_EQ(read_event_id(text), (EventId{0x16B3748, 3})) << text;
}

TEST(EventId, RefusesWhatIsNone) {
    for (const char* text : {"",
                             " ",
                             "x",
                             "1x",
                             "1 7",
                             "+",
                             "+-1",
                             "--1",
                             "0x11",
                             "1.0",
                             "9223372036854775808",
                             "0/",
                             "0/1",
                             "0/1-",
                             "0/1-2x",
                             "/1-2",
                             "0/G-1",
                             "1/2/3-4",
                             "100000000/0-1",
                             "0/0-1",
                             "0/1--2",
                             "0/1-+2",
                             "+0/1-2",
                             "0/1 -2",
                             "-1/1-2",
                             "0/1-9223372036854775808"})
        EXPECT_FALSE(read_event_id(text)) << text;
    EXPECT_FALSE(read_event_id(std::string_view("17\0", 3)));
}

// No route has both; where the two meet all the same, the log's come first.
TEST(EventId, OrderIsByNumberOrByPlace) {
    const EventId rising[] = {EventId::of_log(INT64_MIN),
                              {},
                              EventId::of_log(9),
                              EventId::of_log(10),
                              EventId::of_log(INT64_MAX),
                              {1, 9},
                              {1, 10},
                              {2, 1},
                              {0xFFFFFFFF, 5},
                              {0x100000000, 1},
                              {UINT64_MAX, INT64_MAX}};
    for (std::size_t i = 0; i < std::size(rising); ++i)
        for (std::size_t j = 0; j < std::size(rising); ++j)
            EXPECT_EQ(rising[i] <=> rising[j], i <=> j) << i << " " << j;
}

TEST(EventId, IsAKey) {
    std::unordered_set<EventId> ids;
    for (std::int64_t n = 1; n <= 1000; ++n) {
        ids.insert(EventId::of_log(n));
        ids.insert({static_cast<std::uint64_t>(n) << 3, 1});
        ids.insert({static_cast<std::uint64_t>(n) << 3, 2});
    }
    EXPECT_EQ(ids.size(), 3000U);
    EXPECT_TRUE(ids.contains({8, 2}) && !ids.contains({8, 3}) && ids.contains(EventId::of_log(8)));
    std::unordered_set<std::size_t> hashes;
    for (const EventId& id : ids) hashes.insert(std::hash<EventId>{}(id));
    EXPECT_GT(hashes.size(), 2990U);
}

// As it goes over a border.
static_assert(std::is_trivially_copyable_v<EventId> && std::is_standard_layout_v<EventId> && sizeof(EventId) == 16);

}  // namespace
}  // namespace eventbus
