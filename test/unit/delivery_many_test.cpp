// What it is: tests of many routes on one stream: matched together, what some had settled before, changes meanwhile.
// Who calls it: make -C test/unit delivery.
// Never: sleeps; the clock is turned by hand.
#include <gtest/gtest.h>

#include <random>

#include "delivery_world.hpp"

namespace eventbus::test {
namespace {

TEST(Many, EachOfManyRoutesGetsItsOwnEventsAcrossChunks) {
    World w;
    w.add(1);
    for (std::uint32_t n = 2; n <= 300; ++n) w.add(n, "x." + std::to_string(n) + ".#");
    Ids third;
    std::int64_t id = 0;
    for (int chunk = 0; chunk < 5; ++chunk) {
        std::vector<Ev> events;
        for (int i = 0; i < 150; ++i) {
            const auto n = 2 + (i * 7 + chunk) % 310;
            events.emplace_back("x." + std::to_string(n) + ".made");
            ++id;
            if (n == 3) third.push_back(id);
        }
        w.lend(events);
    }
    ASSERT_FALSE(third.empty());
    w.run();
    EXPECT_EQ(w.broker.ids(1).size(), 750U);
    EXPECT_EQ(w.broker.ids(3), third);
    EXPECT_EQ(w.finished.size(), 5U);
    for (std::uint32_t n = 1; n <= 300; ++n) EXPECT_TRUE(w.status(n).idle) << n;
}

TEST(Many, WhatARouteHadSettledBeforeIsNotOfferedToIt) {
    World w;
    for (std::uint32_t n = 1; n <= 6; ++n) w.add(n, n == 1 ? "#" : n == 6 ? "b" : "a");
    std::vector<Event> events(4);
    for (std::size_t i = 0; i < events.size(); ++i) {
        events[i].id = EventId::of_log(101 + static_cast<std::int64_t>(i));
        events[i].topic = "a";
        events[i].payload = "{}";
        events[i].published_at = w.wall;
    }
    const std::vector<delivery::Chunk::Settled> settled = {{1, 0}, {1, 2}, {2, 0}, {2, 1}, {2, 2}, {2, 3}, {9, 1}};
    w.dispatcher.pause_route(3, true);
    w.dispatcher.lend(1, {1, events, 0, settled});
    EXPECT_TRUE(w.status(2).idle) << "it had all of it";
    EXPECT_TRUE(w.dispatcher.is_settled(2, {1, 0}));
    w.dispatcher.change_route(w.route(1, "a, b"));  // other topics do not bring back what was settled
    for (int i = 0; i < 10; ++i) {
        w.dispatcher.drive({}, w.now);
    }
    EXPECT_EQ(w.broker.ids(1), (Ids{102, 104}));
    EXPECT_EQ(w.broker.ids(2), (Ids{}));
    EXPECT_EQ(w.broker.ids(4), (Ids{101, 102, 103, 104}));
    EXPECT_EQ(w.broker.ids(6), (Ids{}));
    EXPECT_TRUE(w.dispatcher.stands_still(1)) << "the paused one does";
    w.dispatcher.pause_route(3, false);
    EXPECT_FALSE(w.dispatcher.stands_still(1));
    for (int i = 0; i < 10; ++i) w.dispatcher.drive({}, w.now);
    EXPECT_EQ(w.broker.ids(3), (Ids{101, 102, 103, 104}));
    delivery::Report report;
    w.dispatcher.report(report);
    ASSERT_EQ(report.finished.size(), 1U);
    w.dispatcher.release(report.finished);
}

TEST(Many, RoutesComeGoAndChangeWhileChunksAreLent) {
    World w;
    for (std::uint32_t n = 1; n <= 20; ++n) w.add(n, "a." + std::to_string(n));
    for (std::uint32_t n = 1; n <= 20; ++n) w.dispatcher.pause_route(n, true);
    const auto lend = [&] {
        std::vector<Ev> events;
        for (int n = 1; n <= 40; ++n) events.emplace_back("a." + std::to_string(n));
        w.lend(events);
    };
    lend();  // 1 to 40
    w.dispatcher.remove_route(5);
    w.add(30, "a.30");
    w.dispatcher.change_route(w.route(6, "a.31"));  // its events of what is lent, too
    lend();                                         // 41 to 80
    w.add(5, "a.5");                                // in the place of another
    lend();                                         // 81 to 120
    for (std::uint32_t n = 1; n <= 20; ++n) w.dispatcher.pause_route(n, false);
    w.run();
    EXPECT_EQ(w.broker.ids(4), (Ids{4, 44, 84}));
    EXPECT_EQ(w.broker.ids(6), (Ids{31, 71, 111}));
    EXPECT_EQ(w.broker.ids(30), (Ids{70, 110}));
    EXPECT_EQ(w.broker.ids(5), (Ids{85}));
    EXPECT_EQ(w.finished.size(), 3U);
}

TEST(Many, AnEventWithoutATopicIsEachRoutes) {  // what cannot be read from the log
    World w;
    for (std::uint32_t n = 1; n <= 10; ++n) w.add(n, "a." + std::to_string(n));
    w.lend({{"a.1"}, {""}, {"a.2"}});
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2}));
    EXPECT_EQ(w.broker.ids(2), (Ids{2, 3}));
    EXPECT_EQ(w.broker.ids(10), (Ids{2}));
}

TEST(Many, LendingTellsHowManyTicketsMayComeOfIt) {
    World w;
    for (std::uint32_t n = 1; n <= 10; ++n) w.add(n);
    std::vector<Event> events(3);
    for (auto& event : events) event.topic = &event == &events[2] ? "b" : "a.11";
    EXPECT_EQ(w.dispatcher.lend(1, {1, events}), 30U);
    for (std::uint32_t n = 11; n <= 60; ++n) w.add(n, "a." + std::to_string(n));
    EXPECT_EQ(w.dispatcher.lend(1, {2, events}), 32U);
    EXPECT_EQ(w.dispatcher.lend(7, {1, events}), 0U) << "nobody is on that stream";
}

TEST(Many, LeavingOutDoesNotCountWhatWasSettledBefore) {
    World w;
    for (std::uint32_t n = 1; n <= 6; ++n) w.add(n, n == 1 ? "#" : "a");
    for (std::uint32_t n = 1; n <= 6; ++n) w.dispatcher.pause_route(n, true);
    std::vector<Event> events(4);
    for (std::size_t i = 0; i < events.size(); ++i) {
        events[i].id = EventId::of_log(101 + static_cast<std::int64_t>(i));
        events[i].topic = "a";
        events[i].payload = "{}";
        events[i].published_at = w.wall;
    }
    const std::vector<delivery::Chunk::Settled> settled = {{1, 1}, {1, 2}, {2, 3}};
    w.dispatcher.lend(1, {1, events, 0, settled});
    const std::vector<delivery::ChunkId> chunks = {1};
    EXPECT_EQ(w.dispatcher.leave_out(1, chunks), 2U);
    EXPECT_EQ(w.dispatcher.leave_out(2, chunks), 3U);
    EXPECT_EQ(w.dispatcher.leave_out(3, chunks), 4U);
    for (std::uint32_t n = 4; n <= 6; ++n) w.dispatcher.remove_route(n);
    delivery::Report report;
    w.dispatcher.report(report);
    ASSERT_EQ(report.finished.size(), 1U);
    w.dispatcher.release(report.finished);
}

TEST(Many, RoutesThatMoveTakeWhatIsLentWhereTheyAre) {
    World w;
    for (std::uint32_t n = 1; n <= 10; ++n) w.add(n, "a." + std::to_string(n), "{}", 1);
    w.lend({{"a.1"}, {"a.2"}}, 1);
    w.run();
    for (std::uint32_t n = 2; n <= 10; n += 2) w.dispatcher.move_route(n, 2);
    w.lend({{"a.1"}, {"a.2"}}, 1);
    w.lend({{"a.1"}, {"a.2"}, {"a.10"}}, 2);
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 3}));
    EXPECT_EQ(w.broker.ids(2), (Ids{2, 6}));
    EXPECT_EQ(w.broker.ids(10), (Ids{7}));
    EXPECT_EQ(w.finished.size(), 3U);
}

}  // namespace
}  // namespace eventbus::test
