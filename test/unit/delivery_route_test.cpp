// What it is: tests of the life of routes: held and healed, paused, changed, moved, removed.
// Who calls it: make -C test/unit delivery.
// Never: sleeps; the clock is turned by hand.
#include <gtest/gtest.h>

#include "delivery_world.hpp"

namespace eventbus::test {
namespace {

struct Broken {
    World& w;
    std::set<std::uint32_t> lanes;
    explicit Broken(World& world) : w(world) {
        w.broker.on_message = [this](const Sent& sent) -> std::optional<Answer> {
            return lanes.count(sent.lane) > 0 ? fix("NOT_FOUND - no exchange 'x'") : Answer{};
        };
    }
};

TEST(Route, WhatCannotBeReadIsADeadLetterInItsTurn) {
    World w;
    w.add(1);
    w.add(2, "b");
    w.add(3, "c");
    Ev broken("b", "k");
    broken.error = "missing chunk";
    Ev nameless("", "k");
    nameless.error = "no topic";
    w.lend({Ev("a", "k"), broken, nameless, Ev("b", "k")});
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 4}));
    EXPECT_EQ(w.broker.ids(2), (Ids{4}));
    ASSERT_EQ(w.dead.size(), 5U);  // two on the first two routes, and the nameless one on the third
    for (const auto& dead : w.dead) {
        EXPECT_EQ(dead.error, dead.id == 2 ? "missing chunk" : "no topic");
        EXPECT_EQ(dead.attempts, 0U);
        EXPECT_TRUE(dead.id == 3 || dead.route != 3U);
    }
    EXPECT_EQ(w.finished.size(), 1U);
    EXPECT_EQ(w.status(2).dead, 2U);
}

TEST(Route, FromTheWalKeepsItsEventsThere) {
    World w;
    Broken broken(w);
    broken.lanes = {1};
    w.add(1, "#", R"({"source": "wal"})");
    w.lend_many(2, "k");
    w.run();
    ASSERT_EQ(w.notices.size(), 1U);
    EXPECT_TRUE(w.notices[0].text.ends_with("its events stay in the WAL")) << w.notices[0].text;
}

TEST(Route, IsHeldProbedAndHealed) {
    World w;
    Broken broken(w);
    broken.lanes = {1};
    w.add(1);
    w.add(2);
    w.lend_many(50, "k");
    w.run();
    EXPECT_EQ(w.state(1), RouteState::held);
    EXPECT_EQ(w.state(2), RouteState::active);
    EXPECT_EQ(w.status(2).delivered, 50U);
    EXPECT_EQ(w.broker.ids(1).size(), 50U);
    ASSERT_EQ(w.notices.size(), 1U);
    const auto& notice = w.notices[0];
    EXPECT_EQ(notice.level, delivery::Notice::Level::warning);
    EXPECT_EQ(
        notice.text.find("route \"r1\" to broker \"memory\" (memory://here) is held: NOT_FOUND - no exchange 'x'; "
                         "trying again in "),
        0U)
        << notice.text;
    EXPECT_NE(notice.text.find("its events stay in the log"), std::string::npos);
    EXPECT_NE(notice.hint.find("eventbus.alter_route"), std::string::npos);

    w.run_for(10s);
    const auto probes = w.broker.ids(1).size() - 50;
    EXPECT_GE(probes, 3U);
    EXPECT_LE(probes, 8U);
    for (std::size_t i = 50; i < w.broker.ids(1).size(); ++i) EXPECT_EQ(w.broker.ids(1)[i], 1);
    EXPECT_EQ(w.notices.size(), 1U);
    EXPECT_TRUE(w.dead.empty());

    broken.lanes.clear();
    const auto before = w.broker.ids(1).size();
    w.run_for(30s);
    EXPECT_EQ(w.state(1), RouteState::active);
    const auto ids = w.broker.ids(1);
    ASSERT_EQ(ids.size(), before + 50);
    for (std::size_t i = 0; i < 50; ++i) EXPECT_EQ(ids[before + i], static_cast<std::int64_t>(i + 1));
    ASSERT_EQ(w.notices.size(), 2U);
    EXPECT_EQ(w.notices[1].text.find("route \"r1\" to broker \"memory\" (memory://here) delivers again after "), 0U);
    EXPECT_EQ(w.status(1).last_error, "NOT_FOUND - no exchange 'x'");
}

// Out of memory, a full queue: nobody is held, nothing dies, and the log tells once that it is so, and once that it is
// over.
TEST(Route, WhatIsRefusedForTheTimeBeingIsToldWhenNothingPassesForLong) {
    World w;
    bool full = true;
    w.broker.on_message = [&](const Sent&) -> std::optional<Answer> { return full ? retry("OOM") : Answer{}; };
    w.add(1);
    w.add(2, "none");
    w.lend({Ev("a", "k"), Ev("a", "k"), Ev("a")});
    w.run_for(9s);
    EXPECT_TRUE(w.notices.empty()) << "it may pass by itself";
    w.run_for(120s);
    ASSERT_EQ(w.notices.size(), 1U) << "once";
    EXPECT_EQ(w.notices[0].level, delivery::Notice::Level::warning);
    EXPECT_EQ(w.notices[0].text.find("route \"r1\" to broker \"memory\" (memory://here) delivers nothing for 1"), 0U)
        << w.notices[0].text;
    EXPECT_EQ(w.told("refused for the time being: OOM (event "), 1U) << w.notices[0].text;
    EXPECT_EQ(w.told("at most 30.0 s apart"), 1U) << w.notices[0].text;
    EXPECT_FALSE(w.notices[0].hint.empty());
    EXPECT_EQ(w.state(1), RouteState::active);

    full = false;
    w.run_for(60s);
    EXPECT_EQ(w.status(1).delivered, 3U);
    ASSERT_EQ(w.notices.size(), 2U) << "once";
    EXPECT_EQ(w.notices[1].text.find("route \"r1\" to broker \"memory\" (memory://here) delivers again after 1"), 0U)
        << w.notices[1].text;
    EXPECT_EQ(w.notices[1].level, delivery::Notice::Level::log);
    EXPECT_TRUE(w.dead.empty());

    full = true;  // a while after a while
    w.lend_many(1);
    w.run_for(9s);
    EXPECT_EQ(w.notices.size(), 2U);
    w.run_for(60s);
    EXPECT_EQ(w.told("refused for the time being"), 2U);
}

TEST(Route, WhatIsRefusedWhileOthersPassIsNotToldAsNothingPassing) {
    World w;
    w.broker.on_message = [&](const Sent& sent) -> std::optional<Answer> {
        return sent.key == "full" ? retry("quota") : Answer{};
    };
    w.add(1);
    w.lend({Ev("a", "full")});
    for (int second = 0; second < 60; ++second) {
        w.lend({Ev("a", "free")});
        w.run_for(1s);
    }
    EXPECT_EQ(w.told("for the time being"), 0U);
}

// Delivered, but not as the options want it: QoS 1 instead of 2.
TEST(Route, WhatArrivesOtherwiseThanWantedHoldsTheRouteUntilOneArrivesAsWanted) {
    World w;
    bool grants = false;
    w.broker.on_message = [&](const Sent&) -> std::optional<Answer> {
        if (grants) return Answer{};
        return Answer{Verdict::delivered, Remedy::fix_settings, "QoS 1 at most"};
    };
    w.add(1);
    w.lend_many(1);
    w.run();
    EXPECT_EQ(w.state(1), RouteState::held) << "also while nothing waits";
    EXPECT_EQ(w.status(1).delivered, 1U);
    EXPECT_EQ(w.status(1).last_error, "QoS 1 at most");
    w.lend_many(50);
    w.run_for(60s);
    EXPECT_EQ(w.state(1), RouteState::held);
    const auto trickled = w.status(1).delivered;
    EXPECT_GE(trickled, 3U) << "each attempt is one event, at most 30 s apart";
    EXPECT_LE(trickled, 12U);
    EXPECT_EQ(w.broker.ids(1).size(), trickled) << "what has arrived is not sent again";
    EXPECT_EQ(w.notices.size(), 1U) << "told once";
    grants = true;
    w.run_for(40s);
    EXPECT_EQ(w.state(1), RouteState::active);
    EXPECT_EQ(w.status(1).delivered, 51U);
    EXPECT_EQ(w.broker.ids(1).size(), 51U);
    EXPECT_EQ(w.notices.size(), 2U);
    EXPECT_TRUE(w.dead.empty());
}

TEST(Route, OneProbeAtATime) {
    World w;
    w.broker.silent = true;
    w.add(1);
    w.lend_many(10);
    w.run();
    w.broker.answer(1, 1, fix("403"));
    w.run_for(60s);
    EXPECT_EQ(w.broker.open_count(), 9U) << "no probe while older tickets are open";
    w.broker.answer(1, 2, {});
    EXPECT_EQ(w.state(1), RouteState::held) << "an older ticket's success proves nothing";
    w.broker.answer_all(fix("403"));
    w.run();
    EXPECT_EQ(w.broker.open_count(), 1U);
    EXPECT_EQ(w.broker.open_at(0).id, 1);
    w.broker.answer_all(park("too large"));
    w.run();
    EXPECT_EQ(w.dead.size(), 1U);
    EXPECT_EQ(w.state(1), RouteState::held);
    ASSERT_EQ(w.broker.open_count(), 1U);
    EXPECT_EQ(w.broker.open_at(0).id, 3);
    w.broker.answer_all(retry("busy"));
    w.run();
    EXPECT_EQ(w.broker.open_count(), 0U);
    w.run_for(5s);
    ASSERT_EQ(w.broker.open_count(), 1U);
    w.broker.answer_all();
    w.run();
    EXPECT_EQ(w.state(1), RouteState::active);
    w.broker.answer_all();
    w.run_for(60s);
    w.broker.answer_all();
    w.run();
    EXPECT_TRUE(w.status(1).idle);
    EXPECT_EQ(w.status(1).delivered, 9U);
}

TEST(Route, ReleaseTriesAtOnce) {
    World w;
    Broken broken(w);
    broken.lanes = {1};
    w.add(1);
    w.lend_many(5);
    w.run();
    EXPECT_EQ(w.state(1), RouteState::held);
    broken.lanes.clear();
    w.dispatcher.release_route(1);
    EXPECT_LE(w.dispatcher.wake_at(), w.now);
    w.run();
    EXPECT_EQ(w.state(1), RouteState::active);
    EXPECT_EQ(w.status(1).delivered, 5U);
}

TEST(Route, ChangeReleasesAndAddressesAnew) {
    World w;
    w.broker.on_message = [](const Sent& sent) -> std::optional<Answer> {
        return sent.name == "bad" ? fix("404") : Answer{};
    };
    w.dispatcher.add_route(World::route(1, "#", "{}", "queue:bad"), 1);
    w.lend({{"a"}, {"b"}});
    w.run();
    EXPECT_EQ(w.state(1), RouteState::held);
    w.dispatcher.change_route(World::route(1, "b", "{}", "queue:good"));
    w.lend({{"a"}, {"b"}});
    w.run();
    EXPECT_EQ(w.state(1), RouteState::active);
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 2, 4}));
    EXPECT_EQ(w.broker.sent.back().name, "good");
}

TEST(Route, PauseLetsOpenTicketsSettle) {
    World w;
    w.broker.silent = true;
    w.add(1);
    w.lend_many(3);
    w.run();
    w.dispatcher.pause_route(1, true);
    w.lend_many(3);
    EXPECT_EQ(w.dispatcher.wake_at(), broker::TimePoint::max());
    w.run();
    EXPECT_EQ(w.broker.sent.size(), 3U);
    EXPECT_EQ(w.state(1), RouteState::paused);
    w.broker.answer_all();
    w.run();
    EXPECT_EQ(w.status(1).delivered, 3U);
    EXPECT_FALSE(w.status(1).idle);
    w.dispatcher.pause_route(1, false);
    EXPECT_LE(w.dispatcher.wake_at(), w.now);
    w.run();
    EXPECT_EQ(w.broker.sent.size(), 6U);
}

TEST(Route, RemovedRoutesForgetButKeepWhatTheDriverBorrows) {
    World w;
    w.broker.silent = true;
    w.broker.window = 2;
    w.add(1);
    w.lend_many(5);
    w.run();
    EXPECT_EQ(w.broker.open_count(), 2U);
    w.dispatcher.remove_route(1);
    w.run();
    EXPECT_TRUE(w.finished.empty()) << "the driver still borrows two events";
    EXPECT_THROW(w.dispatcher.status(1), std::logic_error);
    w.add(1);
    w.lend_many(1);
    w.broker.answer_all(park("late"));
    w.run();
    EXPECT_EQ(w.finished, (std::vector<delivery::ChunkId>{1}));
    EXPECT_TRUE(w.dead.empty());
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 6}));
    EXPECT_EQ(w.status(1).dead, 0U);
    w.dispatcher.remove_route(1);
    w.broker.cut("gone");
    w.run();
    EXPECT_EQ(w.lent_chunks(), 0U);
    EXPECT_EQ(w.broker.broken_borrows, 0U);
}

TEST(Route, ASlotIsReusedWithFreshTickets) {
    World w;
    std::set<std::uint64_t> tickets;
    for (unsigned id = 1; id <= 20; ++id) {
        w.add(id);
        w.lend_many(3);
        w.run();
        w.dispatcher.remove_route(id);
    }
    for (const auto& sent : w.broker.sent) EXPECT_TRUE(tickets.insert(sent.ticket).second);
    EXPECT_EQ(tickets.size(), 60U);
}

TEST(Route, MovesWhenIdle) {
    World w;
    w.add(1, "#", "{}", 7);
    w.add(2, "#", "{}", 1);
    w.lend_many(2, "", 7);
    EXPECT_THROW(w.dispatcher.move_route(1, 1), std::logic_error);
    w.run();
    w.dispatcher.move_route(1, 1);
    w.lend_many(1, "", 1);
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 3}));
    EXPECT_EQ(w.broker.ids(2), (Ids{3}));
    EXPECT_EQ(w.status(1).stream, 1U);
    EXPECT_EQ(w.lent_chunks(), 0U);
    EXPECT_FALSE(w.dispatcher.hungry(7));
}

TEST(Route, IdsAreUnique) {
    World w;
    w.add(1);
    EXPECT_THROW(w.add(1), std::logic_error);
    EXPECT_THROW(w.dispatcher.remove_route(2), std::logic_error);
}

TEST(Route, AHeldRouteThatFlapsBacksOffFurther) {
    World w;
    w.broker.silent = true;
    w.add(1);
    w.lend_many(100);
    w.run();
    w.broker.answer_all(fix("404"));
    broker::Clock::duration last{};
    for (int i = 0; i < 4; ++i) {
        w.run();
        ASSERT_EQ(w.state(1), RouteState::held);
        last = w.dispatcher.wake_at() - w.now;
        w.run_for(std::chrono::ceil<std::chrono::milliseconds>(last));
        ASSERT_EQ(w.broker.open_count(), 1U);
        w.broker.answer_all();
        w.run();
        ASSERT_EQ(w.state(1), RouteState::active);
        w.broker.answer_all(fix("404"));
    }
    EXPECT_GE(last, 4s);
    w.run();
    w.dispatcher.release_route(1);
    w.run();
    w.broker.answer_all();
    w.run();
    w.run_for(20s);
    w.broker.answer_all(fix("404"));
    w.run();
    EXPECT_LE(w.dispatcher.wake_at() - w.now, 1s);
}

// Who waits for one event must not wait for older ones of other keys.
TEST(Route, TellsOfOneEventWhetherItIsSettled) {
    World w;
    w.broker.silent = true;
    w.add(1, "a");
    w.broker.window = 3;
    const auto first = w.lend({Ev{"a", "x"}, Ev{"other"}, Ev{"a", "y"}});
    const auto second = w.lend({Ev{"a", "z"}, Ev{"other"}, Ev{"a"}});
    w.run();
    auto settled = [&](delivery::ChunkId chunk, std::uint32_t index) {
        return w.dispatcher.is_settled(1, {chunk, index});
    };
    EXPECT_FALSE(settled(first, 0));
    EXPECT_TRUE(settled(first, 1)) << "it is not the route's";
    EXPECT_FALSE(settled(first, 2));
    EXPECT_FALSE(settled(second, 0));
    EXPECT_FALSE(settled(second, 2)) << "not even offered yet";

    w.broker.answer(1, 1, retry("not now"));
    w.broker.answer(1, 3, {});
    w.broker.answer(1, 4, park("never"));
    w.drive();
    EXPECT_FALSE(settled(first, 0)) << "in back-off";
    EXPECT_TRUE(settled(first, 2)) << "delivered, although an older one is not";
    EXPECT_TRUE(settled(second, 0)) << "a dead letter";
    EXPECT_FALSE(settled(second, 2));

    w.broker.silent = false;
    w.broker.answer_all({});
    w.run_for(10s);
    EXPECT_EQ(w.status(1).delivered, 3U);
    const auto third = w.lend({Ev{"other"}, Ev{"a"}});
    w.dispatcher.pause_route(1, true);
    w.run();
    EXPECT_TRUE(settled(third, 0));
    EXPECT_FALSE(settled(third, 1)) << "paused";
}

TEST(Route, CountsLatenciesFromTheCommit) {
    World w;
    w.broker.silent = true;
    w.add(1);
    w.lend({Ev{"a"}});
    w.run();
    w.pass(100ms);
    w.committed_after = w.wall;  // the next one's transaction stayed open for a second
    w.lend({Ev{"a"}}, 1, w.wall - 1'000'000);
    w.run();
    w.pass(50ms);
    w.broker.answer_all({});
    w.run();
    LatencyCounts counts{};
    w.dispatcher.take_latencies(1, counts);
    LatencyCounts expected{};
    ++expected[latency_bucket(150'000)];
    ++expected[latency_bucket(50'000)];
    EXPECT_EQ(counts, expected);
    w.dispatcher.take_latencies(1, counts);
    EXPECT_EQ(counts, expected) << "each is taken once";
}

}  // namespace
}  // namespace eventbus::test
