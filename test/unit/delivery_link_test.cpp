// What it is: tests of the link: attempts, back-off, notices, loss and return, blocking.
// Who calls it: make -C test/unit delivery.
// Never: sleeps; the clock is turned by hand.
#include <gtest/gtest.h>

#include "core/bad_input.hpp"
#include "delivery_world.hpp"

namespace eventbus::test {
namespace {

using broker::LinkState;
const broker::Link refused{LinkState::down, Remedy::retry, "connection refused"};

TEST(Link, ConnectsWithNothingToDeliver) {
    World w;
    EXPECT_EQ(w.dispatcher.link(), LinkState::connecting);
    EXPECT_LE(w.dispatcher.wake_at(), w.now);
    w.broker.stalls = true;
    w.add(1);
    w.run();
    EXPECT_EQ(w.state(1), RouteState::connecting);
    w.broker.stalls = false;
    w.run();
    EXPECT_EQ(w.dispatcher.link(), LinkState::up);
    EXPECT_TRUE(w.notices.empty());
}

TEST(Link, FailureIsToldOnceAndSoIsTheReturn) {
    World w;
    w.broker.refuses_links = refused;
    w.add(1);
    w.lend_many(12);
    w.run();
    EXPECT_EQ(w.state(1), RouteState::retrying);
    EXPECT_EQ(w.dispatcher.link(), LinkState::down);
    EXPECT_EQ(w.dispatcher.link_error(), "connection refused");
    EXPECT_EQ(w.status(1).last_error, "connection refused");
    w.run_for(12300ms);
    ASSERT_EQ(w.notices.size(), 1U);
    EXPECT_EQ(w.notices[0].text,
              "broker \"memory\" (memory://here): connection refused; next attempt in 0.1 s, 12 events wait");
    EXPECT_EQ(w.notices[0].level, delivery::Notice::Level::warning);
    EXPECT_GE(w.broker.attempts.size(), 9U);
    EXPECT_LE(w.broker.attempts.size(), 25U);
    for (std::size_t i = 0; i < w.broker.attempts.size(); ++i) EXPECT_EQ(w.broker.attempts[i], i);

    w.broker.refuses_links->reason = "timed out";
    w.run_for(5s);
    w.broker.refuses_links->reason = "connection refused";
    w.run_for(5s);
    EXPECT_EQ(w.notices.size(), 2U);
    EXPECT_EQ(w.told("timed out"), 1U);

    w.broker.refuses_links.reset();
    w.run_for(2s);
    ASSERT_EQ(w.notices.size(), 3U);
    EXPECT_EQ(w.notices[2].text.find("broker \"memory\" (memory://here) is back after 2"), 0U) << w.notices[2].text;
    EXPECT_EQ(w.notices[2].level, delivery::Notice::Level::log);
    EXPECT_EQ(w.state(1), RouteState::active);
    EXPECT_EQ(w.dispatcher.link_error(), "");
    EXPECT_EQ(w.status(1).delivered, 12U);
}

// A broker that lets us in and throws us out at every message: up and down for ever, and one line in the log.
TEST(Link, ALinkThatNeverWorksIsNotBack) {
    World w;
    w.broker.silent = true;
    w.add(1);
    w.lend_many(2);
    w.run();
    for (int i = 0; i < 20; ++i) {
        w.broker.cut("541 INTERNAL_ERROR");
        w.run();
        EXPECT_EQ(w.state(1), RouteState::retrying);
        w.run_for(2s);
        EXPECT_EQ(w.state(1), RouteState::active) << "up again, until the next message";
    }
    ASSERT_EQ(w.notices.size(), 1U);
    EXPECT_EQ(w.told("541 INTERNAL_ERROR; next attempt in"), 1U);
    for (int i = 0; i < 2; ++i) {  // one by one: both are suspected of breaking the link
        EXPECT_EQ(w.broker.open_count(), 1U);
        w.broker.answer_all();
        w.run();
    }
    ASSERT_EQ(w.notices.size(), 2U);
    EXPECT_EQ(w.told("is back after 4"), 1U) << w.notices[1].text;
    w.broker.cut("541 INTERNAL_ERROR");
    w.run();
    EXPECT_EQ(w.told("541 INTERNAL_ERROR; next attempt in"), 2U) << "another trouble";
    w.run_for(1s);
    EXPECT_EQ(w.told("is back after 0"), 1U) << "nothing waits: to be up is enough";
}

TEST(Link, OpenTicketsComeBackInOrderAndSettledOnesDoNot) {
    World w;
    w.broker.silent = true;
    w.add(1);
    w.lend({{"a", "x"}, {"a", "x"}, {"a"}, {"a", "y"}, {"a", "x"}});
    w.run();
    w.broker.answer(1, 2, {});
    w.broker.answer(1, 4, {});
    w.run();
    w.broker.cut("reset by peer");
    w.lend_many(1);
    w.run();
    EXPECT_EQ(w.dispatcher.link(), LinkState::down);
    EXPECT_EQ(w.status(1).in_flight, 0U);
    EXPECT_EQ(w.told("reset by peer; next attempt in 0.1 s, 6 events wait"), 1U);
    w.run_for(200ms);
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 3, 4, 5, 1, 3, 5, 6}));
    EXPECT_EQ(w.status(1).retries, 3U);
    w.broker.answer_all();
    w.run();
    EXPECT_TRUE(w.status(1).idle);
    EXPECT_EQ(w.finished.size(), 2U);
}

TEST(Link, WhatADriverForgetsComesBackAllTheSame) {
    World w;
    w.broker.silent = true;
    w.broker.forgets = true;
    w.add(1, "#", R"({"order":"strict"})");
    w.add(2);
    w.lend_many(3, "k");
    w.run();
    w.broker.cut("gone");
    w.dispatcher.remove_route(1);
    w.run();
    EXPECT_EQ(w.status(2).in_flight, 0U);
    w.broker.silent = false;
    w.run_for(1s);
    EXPECT_EQ(w.broker.ids(1), (Ids{1}));
    EXPECT_EQ(w.broker.ids(2), (Ids{1, 2, 3, 1, 2, 3}));
    EXPECT_EQ(w.lent_chunks(), 0U);
}

TEST(Link, AWaitingRetrySurvivesTheLoss) {
    World w;
    w.broker.silent = true;
    w.add(1);
    w.lend_many(3, "k");
    w.run();
    w.broker.answer(1, 1, retry("OOM"));
    w.run();
    w.broker.cut("gone");
    w.run();
    w.broker.silent = false;
    w.run_for(3s);
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 3, 1, 2, 3}));
}

TEST(Link, SettingsTroubleIsRetriedSlowlyWithAHint) {
    World w;
    w.broker.refuses_links = broker::Link{LinkState::down, Remedy::fix_settings, "ACCESS_REFUSED"};
    w.run();
    EXPECT_GE(w.dispatcher.wake_at() - w.now, 500ms);
    ASSERT_EQ(w.notices.size(), 1U);
    EXPECT_NE(w.notices[0].hint.find("eventbus.alter_broker"), std::string::npos);
    w.run_for(120s);
    EXPECT_GE(w.dispatcher.wake_at() - w.now, 0s);
    EXPECT_LE(w.broker.attempts.size(), 15U);
    EXPECT_EQ(w.notices.size(), 1U);
}

TEST(Link, ConnectMayThrow) {
    World w;
    w.connect = [](unsigned) -> std::unique_ptr<broker::Driver> {
        throw BadInput("could not read password file \"/x\"", "It is empty.");
    };
    w.add(1);
    w.run();
    EXPECT_EQ(w.dispatcher.link(), LinkState::down);
    EXPECT_EQ(w.told("could not read password file \"/x\" (It is empty); next attempt in"), 1U);
    EXPECT_FALSE(w.notices[0].hint.empty());
    w.connect = [](unsigned) -> std::unique_ptr<broker::Driver> { throw std::runtime_error("no more threads"); };
    w.run_for(5s);
    EXPECT_EQ(w.told("no more threads"), 1U);
    w.connect = [](unsigned) -> std::unique_ptr<broker::Driver> { return nullptr; };
    w.run_for(5s);
    EXPECT_EQ(w.told("no driver was made"), 1U);
    w.connect = [&](unsigned attempt) { return w.broker.connect(attempt); };
    w.run_for(30s);
    EXPECT_EQ(w.dispatcher.link(), LinkState::up);
}

TEST(Link, BackOffStartsAnewAfterSuccess) {
    World w;
    w.add(1);
    w.broker.refuses_links = refused;
    w.run_for(30s);
    w.broker.refuses_links.reset();
    w.run_for(2s);
    w.broker.cut("gone");
    w.run();
    EXPECT_GE(w.dispatcher.wake_at() - w.now, 800ms) << "up for 2 s and nothing delivered: not healthy yet";
    w.run_for(2s);
    w.lend_many(1);
    w.run();
    w.broker.cut("gone");
    w.run();
    EXPECT_LE(w.dispatcher.wake_at() - w.now, 100ms) << "something was delivered";

    w.broker.refuses_links = refused;
    w.run_for(30s);
    w.broker.refuses_links.reset();
    w.run_for(15s);
    w.broker.cut("gone");
    w.run();
    EXPECT_LE(w.dispatcher.wake_at() - w.now, 100ms) << "up for long enough";
}

// Two clients with one name put each other out: they deliver in turn, wait longer and longer, and say it once.
TEST(Link, APlaceThatIsContestedIsGivenUpMoreAndMore) {
    World w;
    w.add(1);
    for (int i = 0; i < 20; ++i) {
        w.lend_many(2);
        w.run_for(31s);
        EXPECT_EQ(w.state(1), RouteState::active);
        EXPECT_EQ(w.status(1).delivered, 2U * static_cast<unsigned>(i + 1)) << "what is delivered makes no difference";
        w.broker.put_out("session taken over");
        w.run();
        EXPECT_EQ(w.state(1), RouteState::retrying);
        EXPECT_EQ(w.status(1).last_error, "session taken over");
    }
    EXPECT_GE(w.dispatcher.wake_at() - w.now, 15s);
    ASSERT_EQ(w.notices.size(), 1U);
    EXPECT_EQ(w.told("session taken over; next attempt in"), 1U);
    EXPECT_NE(w.notices[0].hint.find("a name of its own"), std::string::npos);

    w.run_for(120s);  // nobody else any more
    w.broker.cut("gone");
    w.run();
    EXPECT_EQ(w.told("is back after"), 1U);
    EXPECT_LE(w.dispatcher.wake_at() - w.now, 100ms);
}

TEST(Link, WhereAllRoutesArePausedNoneIsMade) {
    World w;
    for (const unsigned id : {1U, 2U}) {
        w.add(id);
        w.dispatcher.pause_route(id, true);
    }
    w.lend_many(3);
    w.run_for(10s);
    EXPECT_TRUE(w.broker.attempts.empty());
    EXPECT_EQ(w.dispatcher.wake_at(), broker::TimePoint::max());
    w.dispatcher.pause_route(2, false);
    EXPECT_LE(w.dispatcher.wake_at(), w.now);
    w.run();
    EXPECT_EQ(w.status(2).delivered, 3U);
    w.dispatcher.pause_route(2, true);
    w.run_for(10s);
    EXPECT_EQ(w.dispatcher.link(), LinkState::up) << "one that stands is kept";
    w.broker.cut("gone");
    w.run_for(10s);
    EXPECT_EQ(w.broker.attempts.size(), 1U);
}

TEST(Link, ReleaseCutsTheWaitShort) {
    World w;
    w.add(1);
    w.broker.refuses_links = refused;
    w.run_for(30s);
    const auto before = w.broker.attempts.size();
    w.broker.refuses_links.reset();
    w.dispatcher.release_route(1);
    EXPECT_LE(w.dispatcher.wake_at(), w.now);
    w.run();
    EXPECT_EQ(w.broker.attempts.size(), before + 1);
    EXPECT_EQ(w.dispatcher.link(), LinkState::up);
}

TEST(Link, BlockedIsToldOnceAndNothingIsOffered) {
    World w;
    w.add(1);
    w.run();
    w.broker.blocked = "low on memory";
    w.run();
    w.lend_many(3);
    w.run();
    w.run_for(5s);
    EXPECT_TRUE(w.broker.sent.empty());
    EXPECT_EQ(w.state(1), RouteState::blocked);
    EXPECT_EQ(w.dispatcher.link_error(), "low on memory");
    EXPECT_EQ(w.dispatcher.wake_at(), broker::TimePoint::max());
    ASSERT_EQ(w.notices.size(), 1U);
    EXPECT_NE(w.notices[0].text.find("takes no messages for now: low on memory"), std::string::npos);
    w.broker.blocked.reset();
    w.run();
    ASSERT_EQ(w.notices.size(), 2U);
    EXPECT_EQ(w.notices[1].text,
              "broker \"memory\" (memory://here) takes messages again after 5.0 s; delivery resumes");
    EXPECT_EQ(w.status(1).delivered, 3U);
}

TEST(Link, ALossWhileBlockedIsALoss) {
    World w;
    w.add(1);
    w.broker.blocked = "disk";
    w.run();
    EXPECT_EQ(w.state(1), RouteState::blocked);
    w.broker.cut("gone");
    w.run();
    EXPECT_EQ(w.state(1), RouteState::retrying);
    w.broker.blocked.reset();
    w.run_for(1s);
    EXPECT_EQ(w.state(1), RouteState::active);
    EXPECT_EQ(w.told("is back after"), 1U);
    EXPECT_EQ(w.told("takes messages again"), 0U);
}

TEST(Link, AHeldRouteStaysHeldOverALoss) {
    World w;
    w.broker.on_message = [](const Sent&) { return fix("404"); };
    w.add(1);
    w.lend_many(2);
    w.run();
    w.broker.cut("gone");
    w.run_for(500ms);
    EXPECT_EQ(w.state(1), RouteState::held);
    w.broker.on_message = nullptr;
    w.run_for(2s);
    EXPECT_EQ(w.state(1), RouteState::active);
    EXPECT_EQ(w.status(1).delivered, 2U);
}

TEST(Link, AProbeThatIsLostIsTriedAgain) {
    World w;
    w.broker.silent = true;
    w.add(1);
    w.lend_many(2);
    w.run();
    w.broker.answer_all(fix("404"));
    w.run_for(1s);
    ASSERT_EQ(w.broker.open_count(), 1U);
    w.broker.cut("gone");
    w.run();
    w.broker.silent = false;
    w.run_for(1s);
    EXPECT_EQ(w.state(1), RouteState::active);
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 1, 1, 2}));
}

TEST(Link, AnIdleConnectionMayBeClosedAgainAndAgain) {
    World w;
    w.add(1);
    w.lend_many(1);
    w.run();
    for (int i = 0; i < 100; ++i) {
        w.run_for(1s);
        if (w.dispatcher.link() == broker::LinkState::up) {
            w.run_for(1s);
            w.broker.close_idle();
        }
        w.run();
        EXPECT_EQ(w.state(1), RouteState::active);
    }
    EXPECT_TRUE(w.notices.empty());
    EXPECT_LE(w.broker.attempts.size(), 20U) << "the longer nothing is sent, the fewer connections";
    w.lend_many(1);
    w.run();
    EXPECT_EQ(w.status(1).delivered, 2U) << "at once";
    EXPECT_TRUE(w.notices.empty());

    w.run_for(1s);
    w.broker.refuses_links = broker::Link{broker::LinkState::down, Remedy::retry, "connection refused"};
    w.broker.close_idle();
    w.run_for(60s);
    EXPECT_EQ(w.told("connection refused"), 1U) << "a broker that has gone is told";
    EXPECT_EQ(w.state(1), RouteState::retrying);
}

TEST(Link, AServerThatTakesConnectionsAndClosesThemIsTold) {
    World w;
    w.add(1);
    w.run();
    for (int i = 0; i < 100; ++i) {
        w.broker.close_idle();
        w.run_for(100ms);
    }
    EXPECT_GE(w.told("the server closed the connection"), 1U);
    EXPECT_LE(w.broker.attempts.size(), 40U);
}

}  // namespace
}  // namespace eventbus::test
