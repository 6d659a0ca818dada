// What it is: unit tests of event ids as texts.
// Who calls it: make -C test/unit core.
// Never: needs a server.
#include <gtest/gtest.h>

#include "core/event_id.hpp"

namespace eventbus {
namespace {

std::string text_of(const EventId& id) {
    EventIdText text;
    return std::string(to_text(id, text));
}

TEST(EventId, OfTheLogIsItsNumber) {
    Event event;
    event.id = 42;
    event.number = 7;
    EventIdText text;
    EXPECT_EQ(id_text(event, text), "42");
    EXPECT_EQ(read_event_id("42"), (EventId{0, 42}));
    EXPECT_EQ(read_event_id("-42"), (EventId{0, -42}));
}

TEST(EventId, OfTheWalIsCommitAndNumber) {
    Event event;
    event.id = 42;
    event.lsn = 0x16B3748;
    event.number = 7;
    EventIdText text;
    EXPECT_EQ(id_text(event, text), "0/16B3748-7");
    EXPECT_EQ(text_of({UINT64_MAX, INT64_MAX}), "FFFFFFFF/FFFFFFFF-9223372036854775807");
}

TEST(EventId, ReadsWhatItWrites) {
    for (const EventId id : {EventId{1, 1}, EventId{UINT64_MAX, INT64_MAX}, EventId{0xABCDEF0123456789, 12}, EventId{}})
        EXPECT_EQ(read_event_id(text_of(id)), id);
}

TEST(EventId, RefusesWhatIsNone) {
    for (const char* text : {"", "x", "1x", "0/", "0/1", "0/1-", "0/1-2x", "/1-2", "0/G-1", "1/2/3-4", "100000000/0-1"})
        EXPECT_FALSE(read_event_id(text)) << text;
}

}  // namespace
}  // namespace eventbus
