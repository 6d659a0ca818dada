// What it is: tests of matching, order, retry, dead letters, positions and memory bounds.
// Who calls it: make -C test/unit delivery.
// Never: sleeps; the clock is turned by hand.
#include <gtest/gtest.h>

#include "delivery_world.hpp"

namespace eventbus::test {
namespace {

using delivery::Position;

std::function<std::optional<Answer>(const Sent&)> for_id(std::int64_t id, Answer answer) {
    return [=](const Sent& sent) -> std::optional<Answer> { return sent.id == id ? answer : Answer{}; };
}

TEST(Delivery, DeliversWhatMatchesAndFinishesChunks) {
    World w;
    w.add(1, "a");
    w.add(2, "#");
    w.add(3, "none");
    w.lend({{"a"}, {"b"}, {"a"}});
    w.lend({});
    w.lend({{"b"}});
    EXPECT_LE(w.dispatcher.wake_at(), w.now);
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 3}));
    EXPECT_EQ(w.broker.ids(2), (Ids{1, 2, 3, 4}));
    EXPECT_TRUE(w.broker.ids(3).empty());
    EXPECT_EQ(w.finished, (std::vector<delivery::ChunkId>{1, 2, 3}));
    for (const unsigned id : {1U, 2U, 3U}) {
        EXPECT_TRUE(w.status(id).idle);
        EXPECT_EQ(w.status(id).settled, (Position{3, 1}));
        EXPECT_EQ(w.state(id), RouteState::active);
    }
    EXPECT_EQ(w.status(2).delivered, 4U);
    EXPECT_EQ(w.status(2).last_delivered_at.wall, w.wall);
    EXPECT_EQ(w.broker.broken_borrows, 0U);
    EXPECT_TRUE(w.notices.empty());
}

TEST(Delivery, NothingToDoNeedsNoWakeUps) {
    World w;
    w.run();
    EXPECT_EQ(w.dispatcher.link(), broker::LinkState::up);
    EXPECT_EQ(w.dispatcher.wake_at(), broker::TimePoint::max());
    w.add(1);
    w.run();
    EXPECT_EQ(w.dispatcher.wake_at(), broker::TimePoint::max());
    EXPECT_TRUE(w.dispatcher.hungry(1));
    EXPECT_FALSE(w.dispatcher.hungry(2));
}

TEST(Delivery, ChunksFinishAtOnceWithoutRoutes) {
    World w;
    w.lend_many(3);
    w.take_report();
    EXPECT_EQ(w.finished.size(), 1U);
}

TEST(Delivery, ARouteStartsAfterWhatIsLent) {
    World w;
    w.add(1);
    w.lend_many(2);
    w.add(2);
    w.lend_many(1);
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 3}));
    EXPECT_EQ(w.broker.ids(2), (Ids{3}));
}

TEST(Delivery, TemplatesStayReadableUntilTheTicketSettles) {
    World w;
    w.broker.silent = true;
    w.dispatcher.add_route(World::route(1, "#", R"({"routing_key":"rk-{key}-{topic}-with-quite-some-length"})",
                                        "exchange:e-{topic/}-{key}"),
                           1);
    w.lend({{"a.b", "k1"}, {"c.d", "k2"}});
    w.run();
    w.dispatcher.change_route(World::route(1, "#", R"({"routing_key":"x"})", "exchange:another"));
    w.lend({{"e.f", "k3"}});
    w.run();
    ASSERT_EQ(w.broker.sent.size(), 3U);
    EXPECT_EQ(w.broker.sent[0].name, "e-a/b-k1");
    EXPECT_EQ(w.broker.sent[1].routing_key, "rk-k2-c.d-with-quite-some-length");
    EXPECT_EQ(w.broker.sent[2].name, "another");
    EXPECT_EQ(w.broker.sent[2].routing_key, "x");
    w.broker.answer_all();
    w.run();
    EXPECT_EQ(w.broker.broken_borrows, 0U);
    EXPECT_EQ(w.finished.size(), 2U);
}

TEST(Delivery, AnEndlessNameIsADeadLetter) {
    World w;
    w.dispatcher.add_route(World::route(1, "#", "{}", "queue:{key}-{key}"), 1);
    w.lend({{"a", std::string(64 * 1024, 'k')}, {"a", "k"}});
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{2}));
    ASSERT_EQ(w.dead.size(), 1U);
    EXPECT_EQ(w.dead[0].error, "the destination's name is longer than 64 kB for this event");
    EXPECT_EQ(w.dead[0].attempts, 0U);
}

TEST(Delivery, AnEmptyNameIsADeadLetter) {
    World w;
    w.dispatcher.add_route(World::route(1, "#", "{}", "queue:{key}"), 1);
    w.lend({{"a"}, {"a", "k"}});
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{2}));
    ASSERT_EQ(w.dead.size(), 1U);
    EXPECT_EQ(w.dead[0].error, "the destination's name is empty for this event");
    EXPECT_EQ(w.dead[0].attempts, 0U);
}

TEST(Delivery, ParkedEventsAreDeadLettersAndOthersPass) {
    World w;
    w.broker.on_message = for_id(2, park("NO_ROUTE"));
    w.add(1);
    w.lend({{"a", "k"}, {"a", "k"}, {"a", "k"}});
    w.run();
    ASSERT_EQ(w.dead.size(), 1U);
    EXPECT_EQ(w.dead[0].id, 2);
    EXPECT_EQ(w.dead[0].error, "NO_ROUTE");
    EXPECT_EQ(w.dead[0].attempts, 1U);
    EXPECT_EQ(w.status(1).delivered, 2U);
    EXPECT_EQ(w.status(1).dead, 1U);
    EXPECT_EQ(w.status(1).last_error, "NO_ROUTE (event 2 to queue \"q\")");
    EXPECT_EQ(w.finished.size(), 1U);
}

TEST(Delivery, ADeadLetterAlwaysSaysSomething) {
    World w;
    w.broker.on_message = [](const Sent&) { return park(""); };
    w.add(1);
    w.lend_many(1);
    w.run();
    ASSERT_EQ(w.dead.size(), 1U);
    EXPECT_EQ(w.dead[0].error, "refused without a reason");
}

TEST(Delivery, DeadLettersStayReadableUntilTheirChunkIsReported) {
    World w;
    w.broker.on_message = [](const Sent&) { return park("no"); };
    w.add(1);
    w.lend_many(5);
    w.dispatcher.drive({}, w.now);
    w.dispatcher.drive({}, w.now);
    delivery::Report report;
    w.dispatcher.report(report);
    ASSERT_EQ(report.dead.size(), 5U);
    EXPECT_EQ(report.finished.size(), 1U);
    EXPECT_TRUE(report.moved);
    EXPECT_EQ(report.dead[4].event->id, EventId::of_log(5));
    w.dispatcher.report(report);
    EXPECT_TRUE(report.dead.empty());
    EXPECT_TRUE(report.finished.empty());
    EXPECT_FALSE(report.moved);
}

TEST(Delivery, ARefusedEventBlocksItsKeyAndNothingElse) {
    World w;
    w.broker.window = 2;
    bool refuse = true;
    w.broker.on_message = [&](const Sent& sent) -> std::optional<Answer> {
        return refuse && sent.id == 1 ? retry("OOM") : Answer{};
    };
    w.add(1);
    w.lend({{"a", "x"}, {"a", "y"}, {"a", "x"}, {"a", "y"}, {"a"}, {"a", "x"}});
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 4, 5}));
    EXPECT_EQ(w.status(1).settled, (Position{1, 0}));
    EXPECT_GT(w.dispatcher.wake_at(), w.now);
    EXPECT_LE(w.dispatcher.wake_at(), w.now + 100ms);
    refuse = false;
    w.run_for(100ms);
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 4, 5, 1, 3, 6}));
    EXPECT_EQ(w.status(1).retries, 1U);
    EXPECT_TRUE(w.status(1).idle);
    EXPECT_EQ(w.status(1).last_error, "OOM (event 1 to queue \"q\")");
    EXPECT_EQ(w.dispatcher.wake_at(), broker::TimePoint::max());
}

TEST(Delivery, TheKeyStaysBlockedUntilTheRetryIsSettled) {
    World w;
    int refusals = 3;
    w.broker.window = 1;
    w.broker.on_message = [&](const Sent& sent) -> std::optional<Answer> {
        return sent.id == 1 && refusals-- > 0 ? retry("OOM") : Answer{};
    };
    w.add(1);
    w.lend_many(3, "k");
    w.run_for(5s);
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 1, 1, 1, 2, 3}));
}

TEST(Delivery, SeveralRefusedOfOneKeyComeBackInOrder) {
    World w;
    bool refuse = true;
    w.broker.on_message = [&](const Sent&) -> std::optional<Answer> { return refuse ? retry("LOADING") : Answer{}; };
    w.add(1);
    w.lend_many(4, "k");
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 3, 4}));
    refuse = false;
    w.run_for(10s);
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 3, 4, 1, 2, 3, 4}));
}

TEST(Delivery, ARefusedKeyGoesOneByOneUntilItIsCalm) {
    World w;
    w.broker.silent = true;
    w.add(1);
    w.lend_many(1, "k");
    w.run();
    w.broker.answer(1, 1, retry("OOM"));
    w.run();
    w.lend_many(250, "k");
    w.run_for(100ms);
    int id = 1;
    for (; id <= 30; ++id) {
        ASSERT_EQ(w.broker.open_count(), 1U) << "event " << id;
        ASSERT_TRUE(w.broker.answer(1, id, {}));
        w.run();
    }
    w.broker.answer(1, id, retry("OOM"));  // it is counted again
    w.run_for(100ms);
    for (; id <= 130; ++id) {
        ASSERT_EQ(w.broker.open_count(), 1U) << "event " << id;
        ASSERT_TRUE(w.broker.answer(1, id, {}));
        w.run();
    }
    EXPECT_EQ(w.broker.open_count(), 121U);
    w.broker.answer_all();
    w.run();
    EXPECT_TRUE(w.status(1).idle);
    w.lend_many(5, "k");
    w.run();
    EXPECT_EQ(w.broker.open_count(), 5U);
}

TEST(Delivery, BackOffGrowsToItsMost) {
    World w;
    w.broker.on_message = [](const Sent&) { return retry("OOM"); };
    w.add(1);
    w.lend_many(1);
    w.run();
    std::vector<broker::Clock::duration> pauses;
    for (int i = 0; i < 12; ++i) {
        const auto pause = w.dispatcher.wake_at() - w.now;
        pauses.push_back(pause);
        w.pass(std::chrono::ceil<std::chrono::microseconds>(pause));
        w.run();
    }
    EXPECT_GE(pauses[0], 50ms);
    EXPECT_LE(pauses[0], 100ms);
    EXPECT_GE(pauses[4], 800ms);
    EXPECT_LE(pauses[4], 1600ms);
    EXPECT_GE(pauses[11], 15s);
    EXPECT_LE(pauses[11], 30s);
}

TEST(Delivery, StrictOrderHasOneOpenTicketAKey) {
    World w;
    w.broker.silent = true;
    w.add(1, "#", R"({"order":"strict"})");
    w.lend({{"a", "x"}, {"a", "x"}, {"a", "y"}, {"a"}, {"a"}, {"a", "x"}});
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 3, 4, 5}));
    w.broker.answer(1, 1, {});
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 3, 4, 5, 2}));
    w.broker.answer(1, 2, retry("OOM"));
    w.run();
    EXPECT_EQ(w.broker.ids(1).size(), 5U);
    w.run_for(100ms);
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 3, 4, 5, 2, 2}));
    w.broker.answer(1, 2, park("no"));
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 3, 4, 5, 2, 2, 6}));
    w.broker.answer_all();
    w.run();
    EXPECT_TRUE(w.status(1).idle);
}

TEST(Delivery, StrictKeysOutliveTheChunkTheyCameWith) {
    World w;
    w.broker.silent = true;
    w.add(1, "#", R"({"order":"strict"})");
    const std::string key = "a key that is too long for any small-string buffer";
    for (int i = 0; i < 5; ++i) w.lend({{"a", key}, {"a", key}});
    for (int i = 1; i <= 10; ++i) {
        w.run();
        ASSERT_EQ(w.broker.open_count(), 1U);
        EXPECT_EQ(w.broker.open_at(0).id, i);
        w.broker.answer_all();
    }
    w.run();
    EXPECT_EQ(w.lent_chunks(), 0U);
}

TEST(Delivery, OrderMayBecomeStrictUnderWay) {
    World w;
    w.broker.silent = true;
    w.add(1);
    w.lend_many(2, "k");
    w.run();
    EXPECT_EQ(w.broker.open_count(), 2U);
    w.dispatcher.change_route(World::route(1, "#", R"({"order":"strict"})"));
    w.lend_many(2, "k");
    w.run();
    EXPECT_EQ(w.broker.open_count(), 2U);
    w.broker.answer(1, 1, {});
    w.broker.answer(1, 2, {Verdict::unknown, Remedy::retry, "?"});
    for (const int id : {2, 3, 4}) {
        w.run();
        ASSERT_EQ(w.broker.open_count(), 1U);
        EXPECT_EQ(w.broker.open_at(0).id, id);
        w.broker.answer_all();
    }
    w.dispatcher.change_route(World::route(1));
    w.lend_many(3, "k");
    w.run();
    EXPECT_EQ(w.broker.open_count(), 3U);
}

TEST(Delivery, MaxAttempts) {
    World w;
    w.broker.on_message = [](const Sent& s) -> std::optional<Answer> { return s.id == 1 ? retry("quota") : Answer{}; };
    w.add(1, "#", R"({"max_attempts":3})");
    w.lend_many(2, "k");
    w.run_for(10s);
    ASSERT_EQ(w.dead.size(), 1U);
    EXPECT_EQ(w.dead[0].error, "max_attempts (3) reached: quota");
    EXPECT_EQ(w.dead[0].attempts, 3U);
    EXPECT_EQ(w.status(1).delivered, 1U);
    EXPECT_TRUE(w.status(1).idle);
}

TEST(Delivery, LinkLossesDoNotCountAsAttempts) {
    World w;
    w.broker.silent = true;
    w.add(1, "#", R"({"max_attempts":1})");
    w.lend_many(1);
    for (int i = 0; i < 4; ++i) {
        w.run_for(2s);
        EXPECT_EQ(w.broker.open_count(), 1U);
        w.broker.cut("gone");
        w.run();
    }
    w.run_for(2s);
    EXPECT_TRUE(w.dead.empty());
    w.broker.answer(1, 1, retry("full"));
    w.run();
    w.lend_many(1);
    w.run();
    w.broker.answer(1, 2, {});
    w.run_for(1s);
    w.broker.answer(1, 1, retry("full"));
    w.run();
    ASSERT_EQ(w.dead.size(), 1U);
    EXPECT_EQ(w.dead[0].error, "max_attempts (1) reached: full");
    EXPECT_EQ(w.dead[0].attempts, 6U);
}

TEST(Delivery, MaxAgeEndsWaiting) {
    World w;
    w.broker.window = 1;
    w.broker.on_message = [](const Sent& s) -> std::optional<Answer> { return s.id == 1 ? retry("quota") : Answer{}; };
    w.add(1, "#", R"({"max_age":"10 s"})");
    w.lend_many(2, "k");
    w.run_for(9900ms);
    EXPECT_TRUE(w.dead.empty());
    w.run_for(200ms);
    ASSERT_EQ(w.dead.size(), 2U);
    EXPECT_EQ(w.dead[0].error, "max_age (10 s) reached: quota");
    EXPECT_EQ(w.dead[1].error, "max_age (10 s) reached: not delivered in time");
    EXPECT_EQ(w.dead[1].attempts, 0U);
    EXPECT_EQ(w.finished.size(), 1U);
}

TEST(Delivery, OldEventsAreNotOffered) {
    World w;
    w.add(1, "#", R"({"max_age":5})");
    w.add(2);
    w.broker.stalls = true;
    w.lend_many(3);
    w.run_for(6s);
    w.broker.stalls = false;
    w.run();
    EXPECT_TRUE(w.broker.ids(1).empty());
    EXPECT_EQ(w.dead.size(), 3U);
    EXPECT_EQ(w.broker.ids(2), (Ids{1, 2, 3}));
}

TEST(Delivery, PositionsStopAtTheOldestUnsettled) {
    World w;
    w.broker.silent = true;
    w.add(1, "a");
    w.lend({{"b"}, {"a"}, {"a"}, {"b"}});
    w.lend({{"b"}, {"a"}, {"b"}});
    EXPECT_EQ(w.status(1).settled, (Position{1, 1}));
    w.run();
    w.broker.answer(1, 3, {});
    w.run();
    EXPECT_EQ(w.status(1).settled, (Position{1, 1}));
    EXPECT_EQ(w.status(1).in_flight, 2U);
    EXPECT_TRUE(w.finished.empty());
    w.broker.answer(1, 2, {});
    w.run();
    EXPECT_EQ(w.status(1).settled, (Position{2, 1}));
    EXPECT_EQ(w.finished.size(), 1U);
    w.broker.answer_all();
    w.run();
    EXPECT_EQ(w.status(1).settled, (Position{2, 3}));
    EXPECT_EQ(w.status(1).oldest_published_at, 0);
    EXPECT_EQ(w.finished.size(), 2U);
}

TEST(Delivery, TheLagIsThatOfTheOldestMatchingEvent) {
    World w;
    w.broker.silent = true;
    w.add(1, "a");
    w.lend({{"b"}});
    w.pass(1s);
    EXPECT_EQ(w.status(1).oldest_published_at, 0);
    w.lend({{"b"}, {"a"}});
    EXPECT_EQ(w.status(1).oldest_published_at, w.wall);
    w.run();
    EXPECT_EQ(w.status(1).oldest_published_at, w.wall);
}

TEST(Delivery, HungerIsBoundedByEventsAndBytes) {
    delivery::DispatcherLimits limits;
    limits.events = 100;
    limits.bytes = 100'000;
    World w(limits);
    w.broker.silent = true;
    w.add(1);
    w.run();
    w.lend_many(60);
    EXPECT_TRUE(w.dispatcher.hungry(1));
    w.lend_many(60);
    EXPECT_FALSE(w.dispatcher.hungry(1));
    w.run();
    for (int id = 1; id <= 30; ++id) w.broker.answer(1, id, {});
    w.run();
    EXPECT_TRUE(w.dispatcher.hungry(1));
    w.broker.answer_all();
    w.run();
    w.lend({{"a", "", std::string(100'000, 'x')}});
    EXPECT_FALSE(w.dispatcher.hungry(1));
}

// What waits is known, and its age shown, up to the limits, whether anything flows or not.
TEST(Delivery, HungerEndsAtTheLimitsWhileNothingFlows) {
    delivery::DispatcherLimits limits;
    limits.events = 10;
    World w(limits);
    w.add(1);
    w.broker.stalls = true;
    w.lend_many(9);
    w.run();
    EXPECT_TRUE(w.dispatcher.hungry(1));
    w.lend_many(1);
    EXPECT_FALSE(w.dispatcher.hungry(1));
    w.broker.stalls = false;
    w.run();
    EXPECT_TRUE(w.dispatcher.hungry(1));
    w.dispatcher.pause_route(1, true);
    w.lend_many(9);
    EXPECT_TRUE(w.dispatcher.hungry(1));
    w.lend_many(1);
    EXPECT_FALSE(w.dispatcher.hungry(1));
}

TEST(Delivery, RoutesTakeTurns) {
    World w;
    w.broker.window = 10;
    w.add(1);
    w.add(2);
    w.add(3, "rare");
    w.lend_many(1000);
    w.run();
    std::size_t first = 0;
    for (std::size_t i = 0; i < 400; ++i) first += w.broker.sent[i].lane == 1;
    EXPECT_GT(first, 150U);
    EXPECT_LT(first, 250U);
    EXPECT_EQ(w.broker.sent.size(), 2000U);
}

TEST(Delivery, AClosedLaneLeavesOthersAlone) {
    World w;
    w.broker.closed_lanes = {1};
    w.add(1);
    w.add(2);
    w.lend_many(500);
    w.run();
    EXPECT_TRUE(w.broker.ids(1).empty());
    EXPECT_EQ(w.broker.ids(2).size(), 500U);
    EXPECT_GT(w.dispatcher.wake_at(), w.now);
    w.broker.closed_lanes.clear();
    w.run();
    EXPECT_EQ(w.broker.ids(1).size(), 500U);
}

TEST(Delivery, OneDriveIsBounded) {
    delivery::DispatcherLimits limits;
    limits.events = 1'000'000;
    World w(limits);
    w.broker.window = 100'000;
    w.add(1);
    w.lend_many(20'000);
    w.drive();
    EXPECT_LE(w.broker.sent.size(), 4096U);
    EXPECT_LE(w.dispatcher.wake_at(), w.now);
    w.run();
    EXPECT_EQ(w.broker.sent.size(), 20'000U);
}

}  // namespace
}  // namespace eventbus::test
