// What it is: tests of events that break the link: who is suspected, who is found guilty, who continues meanwhile.
// Who calls it: make -C test/unit delivery.
// Never: sleeps; the clock is turned by hand.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "delivery_world.hpp"

namespace eventbus::test {
namespace {

// A broker that answers in order and hangs up at a poison event, and at whatever else it is told to.
class Poisoned : public World {
 public:
    explicit Poisoned(std::set<std::int64_t> poisons) : poison(std::move(poisons)) {
        broker.on_message = [this](const Sent& sent) -> std::optional<Answer> {
            if (broken_on == sent.connection) return std::nullopt;
            if (poison.count(sent.id) > 0 || (hangs_up && hangs_up(sent))) {
                broken_on = sent.connection;
                ++breaks;
                broker.cut("the broker hung up");
                return std::nullopt;
            }
            arrived.push_back(sent);
            return Answer{};
        };
    }
    std::set<std::int64_t> poison;
    std::function<bool(const Sent&)> hangs_up;
    std::vector<Sent> arrived;
    std::size_t breaks = 0;
    unsigned broken_on = 0;

    void spin(std::chrono::milliseconds time, std::chrono::microseconds step = 1ms) {
        for (const auto end = now + time; now < end; pass(step)) drive();
    }
    Ids arrived_with(std::uint32_t lane, const std::string& key) const {
        Ids ids;
        for (const auto& sent : arrived) {
            if (sent.lane == lane && sent.key == key) ids.push_back(sent.id);
        }
        return ids;
    }
    std::size_t distinct() const {
        std::set<std::pair<std::uint32_t, std::int64_t>> seen;
        for (const auto& sent : arrived) seen.emplace(sent.lane, sent.id);
        return seen.size();
    }
    void lend_keys(int events, int keys) {
        std::vector<Ev> all;
        for (int i = 0; i < events; ++i) all.emplace_back("a", "k" + std::to_string(i % keys));
        lend(all);
    }
    void expect_order(std::uint32_t lane, int keys) const {
        for (int key = 0; key < keys; ++key) {
            const auto ids = arrived_with(lane, "k" + std::to_string(key));
            EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end())) << "key k" << key << " of route " << lane;
        }
    }
};

TEST(SuspectSearch, OneEventThatBreaksTheLinkHoldsUpItsKeyAlone) {
    Poisoned w({17});
    w.add(1);
    w.add(2, "nothing");
    w.lend_keys(400, 20);
    w.spin(5s);
    EXPECT_EQ(w.distinct(), 400U - 20U) << "the event and the 19 of its key behind it";
    EXPECT_EQ(w.arrived_with(1, "k16"), Ids{}) << "event 17 is the first of its key";
    EXPECT_EQ(w.arrived_with(1, "k0").size(), 20U);
    w.expect_order(1, 20);
    EXPECT_EQ(w.status(1).last_error,
              "the connection broke each time this event was offered: the broker hung up (event 17 to queue \"q\")");
    EXPECT_EQ(w.told("event 17 breaks the connection each time it is offered: the broker hung up"), 1U);
    EXPECT_TRUE(w.dead.empty());
    EXPECT_EQ(w.state(2), RouteState::active);

    // Others continue while it is tried again, further and further apart; nobody is told of each attempt.
    const auto breaks = w.breaks;
    std::size_t notices = 0;
    for (unsigned second = 1; second <= 120; ++second) {
        w.lend({{"a", "k1"}, {"a", "k2"}});
        w.spin(1s, 5ms);
        ASSERT_EQ(w.distinct(), 380U + 2U * second);
        if (second == 1) notices = w.notices.size();  // that the broker is back is told once something was delivered
    }
    EXPECT_GE(w.breaks, breaks + 3);
    EXPECT_LE(w.breaks, breaks + 20) << "in the end 30 s apart";
    EXPECT_EQ(w.notices.size(), notices);

    w.poison.clear();
    w.spin(31s, 5ms);
    EXPECT_EQ(w.arrived_with(1, "k16").size(), 20U);
    w.expect_order(1, 20);
    EXPECT_TRUE(w.status(1).idle);
}

TEST(SuspectSearch, OnSeveralRoutesOthersGoOnWithinSeconds) {
    Poisoned w({1});
    w.add(1);
    w.add(2);
    w.lend_keys(500, 50);
    w.spin(3s);
    EXPECT_EQ(w.distinct(), 2 * (500U - 10U));
}

TEST(SuspectSearch, MaxAttemptsMakesItADeadLetter) {
    Poisoned w({3});
    w.add(1, "#", R"({"max_attempts":3})");
    w.lend_keys(10, 10);
    for (int i = 0; i < 40 && w.dead.empty(); ++i) {
        w.lend_keys(2, 2);  // what arrives beside it shows that it is not the broker
        w.spin(500ms);
    }
    ASSERT_EQ(w.dead.size(), 1U);
    EXPECT_EQ(w.dead[0].id, 3);
    EXPECT_EQ(w.dead[0].error,
              "max_attempts (3) reached: the connection broke each time this event was offered: the broker hung up");
    w.spin(1s);
    EXPECT_TRUE(w.status(1).idle);
    EXPECT_EQ(w.state(1), RouteState::active);
}

TEST(SuspectSearch, SeveralAreFoundOneAfterAnother) {
    Poisoned w({5, 6, 77, 150});
    w.add(1);
    w.lend_keys(200, 200);
    w.spin(20s);
    EXPECT_EQ(w.distinct(), 196U);
    EXPECT_EQ(w.told("breaks the connection each time"), 1U) << "one line a route while there is any";
    w.poison.clear();
    w.spin(31s, 5ms);
    EXPECT_EQ(w.distinct(), 200U);
}

TEST(SuspectSearch, EventsWithoutAKeyWaitForNobody) {
    Poisoned w({4});
    w.add(1);
    w.lend_many(100);
    w.spin(3s);
    EXPECT_EQ(w.distinct(), 99U);
}

TEST(SuspectSearch, StrictOrderIsKept) {
    Poisoned w({12});
    w.add(1, "#", R"({"order":"strict"})");
    w.lend_keys(100, 10);
    w.spin(5s);
    EXPECT_EQ(w.distinct(), 100U - 9U);
    EXPECT_EQ(w.arrived_with(1, "k1"), (Ids{2}));
    w.poison.clear();
    w.spin(31s, 5ms);
    EXPECT_EQ(w.arrived_with(1, "k1"), (Ids{2, 12, 22, 32, 42, 52, 62, 72, 82, 92}));
}

TEST(SuspectSearch, AloneInTheLogItIsTriedAgainAndNeverDies) {
    Poisoned w({1});
    w.add(1, "#", R"({"max_attempts":1})");
    w.lend_many(1, "k");
    w.spin(60s, 5ms);
    EXPECT_TRUE(w.dead.empty()) << "nothing else has been delivered: the broker may be to blame";
    EXPECT_GE(w.breaks, 20U);
    EXPECT_LE(w.breaks, 100U);
    for (int i = 0; i < 10; ++i) {
        w.lend_many(1, "other");
        w.spin(1s, 5ms);
    }
    ASSERT_EQ(w.dead.size(), 1U);
    EXPECT_EQ(w.dead[0].id, 1);
    EXPECT_EQ(w.distinct(), 10U);
}

TEST(SuspectSearch, ABrokerThatHangsUpAtEverythingFindsNobodyGuilty) {
    Poisoned w({});
    w.hangs_up = [](const Sent&) { return true; };
    w.add(1, "#", R"({"max_attempts":1})");
    w.add(2, "#", R"({"max_attempts":1,"order":"strict"})");
    w.lend_keys(2000, 100);
    w.spin(60s, 5ms);
    EXPECT_TRUE(w.arrived.empty());
    EXPECT_TRUE(w.dead.empty());
    EXPECT_EQ(w.told("breaks the connection each time"), 0U);
    w.hangs_up = nullptr;
    w.spin(2s);
    EXPECT_EQ(w.distinct(), 4000U) << "all pass as soon as the link works";
    EXPECT_TRUE(w.dead.empty());
    w.expect_order(1, 100);
    w.expect_order(2, 100);
}

TEST(SuspectSearch, ABrokerThatIsDownForLongFindsNobodyGuilty) {
    Poisoned w({});
    w.add(1, "#", R"({"max_attempts":1})");
    w.lend_keys(100, 10);
    w.broker.refuses_links = broker::Link{broker::LinkState::down, Remedy::retry, "connection refused"};
    w.spin(60s, 5ms);
    EXPECT_GE(w.broker.attempts.size(), 30U);
    w.broker.refuses_links.reset();
    w.spin(2s);
    EXPECT_EQ(w.distinct(), 100U);
    EXPECT_TRUE(w.dead.empty());
}

TEST(SuspectSearch, ALinkThatIsCutAgainAndAgainLosesNothingAndKillsNobody) {
    for (std::uint32_t seed = 0; seed < 20; ++seed) {  // 0: each seventh; else one of seven by chance
        Poisoned w({});
        std::uint32_t messages = seed;
        w.hangs_up = [&](const Sent&) {
            messages = seed == 0 ? messages + 1 : messages * 1664525U + 1013904223U;
            return (seed == 0 ? messages : messages >> 16) % 7 == 0;
        };
        w.add(1, "#", seed == 0 ? R"({"max_attempts":2})" : "{}");
        w.lend_keys(200, 20);
        w.spin(60s, 5ms);
        EXPECT_GE(w.breaks, 15U);
        EXPECT_EQ(w.distinct(), 200U) << "seed " << seed;
        EXPECT_TRUE(w.dead.empty()) << "seed " << seed;
        w.expect_order(1, 20);
    }
}

TEST(SuspectSearch, ABrokerThatSaysGoodbyeAccusesNobody) {
    Poisoned w({});
    w.broker.silent = true;
    w.add(1);
    w.lend_keys(10, 5);
    for (int i = 0; i < 6; ++i) {
        w.spin(2s, 5ms);
        EXPECT_EQ(w.broker.open_count(), 10U) << "all at once again, as if nothing had happened";
        w.broker.leave("CONNECTION_FORCED");
    }
    w.broker.silent = false;
    w.spin(3s, 5ms);
    EXPECT_EQ(w.distinct(), 10U);
}

TEST(SuspectSearch, APausedOrRemovedRouteKeepsNobodyWaiting) {
    Poisoned w({1, 2});
    w.add(1, "a.#");
    w.add(2, "b.#");
    w.add(3, "c.#");
    w.lend({{"a", "k"}, {"b", "k"}, {"c", "k"}});
    w.spin(3s);
    w.dispatcher.pause_route(1, true);
    w.dispatcher.remove_route(2);
    w.lend({{"c", "k"}});
    w.spin(2s);
    EXPECT_EQ(w.status(3).delivered, 2U);
    const auto breaks = w.breaks;
    w.spin(60s, 5ms);
    EXPECT_EQ(w.breaks, breaks);
    w.poison.clear();
    w.dispatcher.pause_route(1, false);
    w.spin(1s);
    EXPECT_EQ(w.status(1).delivered, 1U);
}

TEST(SuspectSearch, AClosedLaneOfASuspectLeavesTheOthersAlone) {
    Poisoned w({1});
    w.add(1, "a");
    w.add(2, "b");
    w.lend({{"a", "k"}, {"b", "k"}});
    w.spin(5s);
    w.broker.closed_lanes = {1};
    for (int i = 0; i < 60; ++i) {
        w.lend({{"b", "k"}});
        w.spin(1s, 5ms);
    }
    EXPECT_EQ(w.status(2).delivered, 61U);
}

TEST(SuspectSearch, TheDispatcherSleepsWhileItWaits) {
    Poisoned w({1});
    w.add(1);
    w.lend_keys(30, 3);
    w.spin(5s);
    const auto drives = w.broker.drives;
    for (const auto end = w.now + 60s; w.now < end;) {
        const auto due = std::clamp(w.dispatcher.wake_at(), w.now, w.now + 500ms);
        w.pass(std::chrono::ceil<std::chrono::microseconds>(due - w.now));
        w.drive();
        ASSERT_LE(w.broker.drives - drives, 400U);
    }
    EXPECT_EQ(w.status(1).in_flight, 0U);
}

}  // namespace
}  // namespace eventbus::test
