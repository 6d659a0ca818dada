// What it is: tests of leaving events out: what goes, what stays, what becomes of what is under way.
// Who calls it: make -C test/unit delivery.
// Never: sleeps; the clock is turned by hand.
#include <gtest/gtest.h>

#include "delivery_world.hpp"

namespace eventbus::test {
namespace {

// Chunks are numbered from 1 in these tests.
std::vector<delivery::ChunkId> before(delivery::ChunkId kept) {
    std::vector<delivery::ChunkId> chunks;
    for (delivery::ChunkId id = 1; id < kept; ++id) chunks.push_back(id);
    return chunks;
}

TEST(Skip, WhatWaitsBeforeTheChunkGoesAndTheRestIsDelivered) {
    World w;
    w.add(1);
    w.add(2, "b");
    w.dispatcher.pause_route(1, true);
    w.dispatcher.pause_route(2, true);
    w.lend({{"a"}, {"b"}});
    w.lend({{"a"}});
    const auto kept = w.lend({{"a"}, {"b"}});
    EXPECT_EQ(w.dispatcher.leave_out(1, before(kept)), 3U);
    EXPECT_EQ(w.dispatcher.leave_out(1, before(kept)), 0U) << "nothing is counted twice";
    EXPECT_EQ(w.dispatcher.leave_out(2, before(kept)), 1U) << "only what matches";
    w.run();
    EXPECT_EQ(w.finished.size(), 2U);
    w.dispatcher.pause_route(1, false);
    w.dispatcher.pause_route(2, false);
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{4, 5}));
    EXPECT_EQ(w.broker.ids(2), (Ids{5}));
    EXPECT_EQ(w.status(1).delivered, 2U);
    EXPECT_TRUE(w.status(1).idle);
}

TEST(Skip, WhatIsUnderWayIsForgottenWhenItSettles) {
    World w;
    w.broker.silent = true;
    w.add(1);
    w.lend_many(3);
    const auto kept = w.lend_many(1);
    w.run();
    ASSERT_EQ(w.broker.open_count(), 4U);
    EXPECT_EQ(w.dispatcher.leave_out(1, before(kept)), 3U);
    w.run();
    EXPECT_TRUE(w.finished.empty()) << "the driver still borrows it";
    EXPECT_EQ(w.status(1).in_flight, 4U);
    w.broker.answer(1, 1, {});
    w.broker.answer(1, 2, retry("later"));
    w.broker.answer(1, 3, park("never"));
    w.broker.answer(1, 4, {});
    w.run();
    EXPECT_EQ(w.broker.sent.size(), 4U) << "not offered again";
    EXPECT_EQ(w.status(1).delivered, 1U);
    EXPECT_TRUE(w.dead.empty());
    EXPECT_EQ(w.finished.size(), 2U);
    EXPECT_EQ(w.broker.broken_borrows, 0U);
}

TEST(Skip, WhatWasUnderWayDoesNotComeBackWithTheLink) {
    World w;
    w.broker.silent = true;
    w.add(1);
    w.lend_many(3, "k");
    const auto kept = w.lend_many(2, "k");
    w.run();
    EXPECT_EQ(w.dispatcher.leave_out(1, before(kept)), 3U);
    w.broker.cut("gone");
    w.drive();
    w.broker.silent = false;
    w.run_for(5000ms);
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 3, 4, 5, 4, 5}));
    EXPECT_EQ(w.status(1).delivered, 2U);
    EXPECT_EQ(w.finished.size(), 2U);
}

TEST(Skip, TheRestOfAKeyGoesOnBehindWhatWasLeftOut) {
    for (const char* options : {"{}", R"({"order":"strict"})"}) {
        World w;
        w.broker.on_message = [](const Sent& sent) -> std::optional<Answer> {
            return sent.id == 1 ? retry("full") : Answer{};
        };
        w.add(1, "#", options);
        w.lend_many(2, "k");
        const auto kept = w.lend_many(2, "k");
        w.run();
        const auto left_out = w.dispatcher.leave_out(1, before(kept));
        EXPECT_GE(left_out, 1U) << options;
        w.run_for(1000ms);
        EXPECT_TRUE(w.status(1).idle) << options;
        EXPECT_EQ(w.status(1).delivered + left_out, 4U) << options;
        EXPECT_EQ(w.broker.ids(1).back(), 4) << options;
    }
}

TEST(Skip, AHeldRouteTriesTheNextEvent) {
    World w;
    w.broker.on_message = [](const Sent& sent) -> std::optional<Answer> {
        return sent.id <= 2 ? fix("404") : Answer{};
    };
    w.add(1);
    w.lend_many(2);
    const auto kept = w.lend_many(2);
    w.run();
    EXPECT_EQ(w.state(1), RouteState::held);
    EXPECT_EQ(w.dispatcher.leave_out(1, before(kept)), 2U);
    w.lend_many(1);
    w.run_for(60000ms);
    EXPECT_EQ(w.state(1), RouteState::active);
    EXPECT_EQ(w.status(1).delivered, 3U);
}

TEST(Skip, NothingBeforeMeansNothingLeftOut) {
    World w;
    w.add(1);
    EXPECT_EQ(w.dispatcher.leave_out(1, before(1)), 0U);
    const auto first = w.lend_many(3);
    EXPECT_EQ(w.dispatcher.leave_out(1, before(first)), 0U);
    w.run();
    EXPECT_EQ(w.status(1).delivered, 3U);
}

// A transaction that was running when its segment was read is lent behind younger events.
TEST(Skip, AChunkBehindOthersGoesWhetherTheRouteHasComeToItOrNot) {
    for (const bool come : {false, true}) {
        World w;
        w.broker.silent = true;
        w.add(1, "a");
        if (!come) w.dispatcher.pause_route(1, true);
        w.lend({{"a"}, {"b"}});
        w.lend({{"a"}});
        const auto late = w.lend({{"a"}, {"b"}, {"a"}});
        w.lend({{"a"}});
        w.run();
        const std::vector<delivery::ChunkId> old{1, late};
        EXPECT_EQ(w.dispatcher.leave_out(1, old), 3U) << come;
        EXPECT_EQ(w.dispatcher.leave_out(1, old), 0U) << come;
        if (!come) {
            w.dispatcher.pause_route(1, false);
            w.run();
            EXPECT_EQ(w.broker.ids(1), (Ids{3, 7}));
        }
        w.broker.silent = false;
        w.broker.cut("gone");
        w.run_for(5000ms);
        EXPECT_EQ(w.status(1).delivered, 2U) << come;
        EXPECT_TRUE(w.status(1).idle) << come;
        EXPECT_EQ(w.finished.size(), 4U) << come;
    }
}

TEST(Skip, WhatWasPassedOverForAnotherChunkIsPassedOverOnce) {
    World w;
    w.add(1);
    w.dispatcher.pause_route(1, true);
    w.lend_many(2);
    const auto late = w.lend_many(2);
    w.lend_many(1);
    EXPECT_EQ(w.dispatcher.leave_out(1, std::vector<delivery::ChunkId>{late}), 2U);
    EXPECT_EQ(w.dispatcher.leave_out(1, before(late + 1)), 2U) << "only what was not left out before";
    w.dispatcher.pause_route(1, false);
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{5}));
}

}  // namespace
}  // namespace eventbus::test
