// What it is: unit tests of events as messages in the WAL.
// Who calls it: make -C test/unit core.
// Never: needs a server.
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/wal_message.hpp"

namespace eventbus {
namespace {

Event sample() {
    Event event;
    event.published_at = 1795162949580000;
    event.topic = "shop.order.created";
    event.key = "order-1";
    event.content_type = "application/json";
    event.headers = R"({"a":1})";
    event.payload = R"({"b":2})";
    return event;
}

std::string write(const Event& event) {
    std::string content(wal_message_size(event), 'x');
    write_wal_message(event, content.data());
    return content;
}

TEST(WalMessage, ReadsWhatItWrites) {
    for (const bool has_key : {true, false}) {
        Event event = sample();
        if (!has_key) event.key.reset();
        const auto content = write(event);
        Event read;
        ASSERT_TRUE(read_wal_message(content, read));
        EXPECT_EQ(read.topic, event.topic);
        EXPECT_EQ(read.key, event.key);
        EXPECT_EQ(read.content_type, event.content_type);
        EXPECT_EQ(read.headers, event.headers);
        EXPECT_EQ(read.payload, event.payload);
        EXPECT_EQ(read.published_at, event.published_at);
        EXPECT_FALSE(read.is_bytes);
    }
}

TEST(WalMessage, WhatIsNotGivenIsEmpty) {
    Event event;
    event.topic = "t";
    const auto content = write(event);
    Event read;
    ASSERT_TRUE(read_wal_message(content, read));
    EXPECT_EQ(read.topic, "t");
    EXPECT_FALSE(read.key.has_value());
    EXPECT_EQ(read.headers, "");
    EXPECT_EQ(read.payload, "");
}

TEST(WalMessage, AnEmptyKeyIsAKey) {
    Event event = sample();
    event.key = "";
    event.payload = "";
    const auto content = write(event);
    Event read;
    ASSERT_TRUE(read_wal_message(content, read));
    ASSERT_TRUE(read.key.has_value());
    EXPECT_EQ(*read.key, "");
    EXPECT_EQ(read.payload, "");
}

TEST(WalMessage, RefusesWhatIsNone) {
    const auto content = write(sample());
    Event read;
    EXPECT_FALSE(read_wal_message("", read));
    EXPECT_FALSE(read_wal_message("words of somebody else, under our prefix", read));
    // Cut anywhere but in the payload.
    for (std::size_t length = 0; length + sample().payload.size() < content.size(); ++length) {
        const std::vector<char> cut(content.begin(), content.begin() + static_cast<std::ptrdiff_t>(length));
        EXPECT_FALSE(read_wal_message({cut.data(), cut.size()}, read)) << length;
    }
    auto other_version = content;
    other_version[0] = 2;
    EXPECT_FALSE(read_wal_message(other_version, read));
    auto no_bool = content;
    no_bool[1] = 2;
    EXPECT_FALSE(read_wal_message(no_bool, read));
}

TEST(WalMessage, RefusesTimesThatNobodyCanWrite) {
    Event read;
    for (const std::int64_t time : {std::numeric_limits<std::int64_t>::min(), std::int64_t{-62135596800000001},
                                    std::int64_t{253402300800000000}, std::numeric_limits<std::int64_t>::max()}) {
        Event event = sample();
        event.published_at = time;
        EXPECT_FALSE(read_wal_message(write(event), read)) << time;
    }
    for (const std::int64_t time :
         {std::int64_t{-62135596800000000}, std::int64_t{0}, std::int64_t{253402300799999999}}) {
        Event event = sample();
        event.published_at = time;
        EXPECT_TRUE(read_wal_message(write(event), read)) << time;
    }
}

// Whatever it is, it is read without reading beyond its end.
TEST(WalMessage, AnyBytes) {
    std::mt19937 random(1);
    const auto whole = write(sample());
    Event read;
    for (int round = 0; round < 20000; ++round) {
        std::vector<char> content(whole.begin(), whole.begin() + random() % (whole.size() + 1));
        for (int changes = static_cast<int>(random() % 4); changes > 0 && !content.empty(); --changes)
            content[random() % content.size()] = static_cast<char>(random());
        if (!read_wal_message({content.data(), content.size()}, read)) continue;
        const std::size_t taken = read.topic.size() + (read.key ? read.key->size() : 0) + read.content_type.size() +
                                  read.headers.size() + read.payload.size();
        EXPECT_LT(taken, content.size());
    }
}

}  // namespace
}  // namespace eventbus
