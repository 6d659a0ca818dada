// What it is: tests of whose trouble a refusal is: the event's, the route's or the broker's; of routes that stand.
// Who calls it: make -C test/unit delivery.
// Never: sleeps; the clock is turned by hand.
#include <gtest/gtest.h>

#include "delivery_world.hpp"

namespace eventbus::test {
namespace {

// Answers by topic: the destination's name is the topic.
struct Names : World {
    std::map<std::string, Answer> refused;
    std::optional<Answer> everything;
    std::map<std::string, Ids> came;  // by key

    explicit Names(delivery::DispatcherLimits limits = {}) : World(limits) {
        broker.on_message = [this](const Sent& sent) -> std::optional<Answer> {
            if (everything) return *everything;
            const auto found = refused.find(sent.name);
            if (found != refused.end()) return found->second;
            came[sent.key.value_or("")].push_back(sent.id);
            return Answer{};
        };
    }
    void add_named(std::uint32_t id, std::string_view options = "{}", std::string_view topics = "#") {
        dispatcher.add_route(route(id, topics, options, "queue:{topic}"), 1);
    }
    void lend_one(const std::string& topic, const std::string& key = {}) { lend({Ev{topic, key}}); }
    void lend_keys(const std::string& topic, unsigned count, unsigned keys) {
        std::vector<Ev> events;
        for (unsigned i = 0; i < count; ++i) events.emplace_back(topic, topic + " key " + std::to_string(i % keys));
        lend(events);
    }
    // Others flow while time passes.
    void flow(std::chrono::milliseconds time, const std::string& topic = "good") {
        for (auto passed = 0ms; passed < time; passed += 500ms) {
            lend_one(topic, topic);
            run_for(500ms);
        }
    }
    std::size_t arrived() const {
        std::size_t count = 0;
        for (const auto& [key, ids] : came) count += ids.size();
        return count;
    }
    void expect_order() const {
        for (const auto& [key, ids] : came) {
            if (key.empty()) continue;
            EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end())) << key;
        }
    }
};

TEST(Trial, AForbiddenNameInFrontHoldsNobodyAndIsADeadLetterAfterAMinute) {
    for (const auto* order : {"key", "strict"}) {
        Names w;
        w.refused["secret"] = forbidden();
        w.add_named(1, std::string(R"({"order":")") + order + "\"}");
        w.lend_one("secret", "k");
        w.lend_keys("good", 45, 9);
        w.run_for(1s);
        EXPECT_EQ(w.arrived(), 45U);
        EXPECT_EQ(w.state(1), RouteState::active);
        EXPECT_EQ(w.status(1).last_error, "ACCESS_REFUSED (event 1 to queue \"secret\")");
        w.run_for(58s);
        EXPECT_TRUE(w.dead.empty()) << "attempts go over a minute at least";
        w.run_for(3s);
        ASSERT_EQ(w.dead.size(), 1U);
        EXPECT_EQ(w.dead[0].error, "ACCESS_REFUSED");
        EXPECT_GE(w.dead[0].attempts, 5U);
        EXPECT_TRUE(w.status(1).idle);
        EXPECT_EQ(w.told("is held"), 0U);
    }
}

TEST(Trial, MaxAttemptsIsSooner) {
    Names w;
    w.refused["secret"] = forbidden();
    w.add_named(1, R"({"max_attempts":3})");
    w.lend_one("secret", "k");
    w.lend_keys("good", 3, 3);
    w.run_for(5s);
    ASSERT_EQ(w.dead.size(), 1U);
    EXPECT_EQ(w.dead[0].error, "max_attempts (3) reached: ACCESS_REFUSED");
    EXPECT_EQ(w.dead[0].attempts, 3U);
}

TEST(Trial, WhereAllNamesAreForbiddenTheRouteIsHeldAndProbedInTurn) {
    Names w;
    w.everything = forbidden();
    w.add_named(1, R"({"max_attempts":2})");
    w.lend_keys("a", 20, 10);
    w.run_for(1s);
    EXPECT_EQ(w.state(1), RouteState::held);
    EXPECT_EQ(w.told("route \"r1\" to broker \"memory\" (memory://here) is held: ACCESS_REFUSED (event "), 1U);
    const auto before = w.broker.sent.size();
    w.run_for(600s);
    EXPECT_TRUE(w.dead.empty());
    EXPECT_EQ(w.notices.size(), 1U);
    const auto probes = w.broker.sent.size() - before;
    EXPECT_GE(probes, 15U);
    EXPECT_LE(probes, 60U);
    std::set<std::int64_t> probed;
    for (auto i = before; i < w.broker.sent.size(); ++i) probed.insert(w.broker.sent[i].id);
    EXPECT_EQ(probed, (std::set<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})) << "the oldest of each key";
    w.everything.reset();
    w.run_for(31s);
    EXPECT_EQ(w.state(1), RouteState::active);
    EXPECT_EQ(w.arrived(), 20U);
    w.expect_order();
    EXPECT_EQ(w.told("delivers again after"), 1U);
    EXPECT_TRUE(w.dead.empty());
}

// The sender always has more: what waits behind a refused key fills all that may be lent.
TEST(Trial, WhereAllNamesAreForbiddenTheRouteIsHeldUnderLoad) {
    for (const unsigned keys : {0U, 5U, 21U, 100U}) {
        Names w;
        w.add_named(1, "{}", "#");
        unsigned n = 0;
        const auto load = [&](std::chrono::milliseconds time) {
            for (auto passed = 0ms; passed < time; passed += 10ms) {
                std::vector<Ev> events;
                for (unsigned i = 0; i < 21; ++i, ++n)
                    events.emplace_back("a", keys == 0 ? "" : "k" + std::to_string(n % keys));
                if (w.dispatcher.hungry(1)) w.lend(events);
                w.run_for(10ms);
            }
        };
        load(1s);
        w.everything = forbidden();
        load(30s);
        EXPECT_EQ(w.state(1), RouteState::held) << keys << " keys";
        EXPECT_EQ(w.told("is held"), 1U) << keys << " keys";
        w.everything.reset();
        load(31s);
        EXPECT_EQ(w.state(1), RouteState::active) << keys << " keys";
        EXPECT_TRUE(w.dead.empty()) << keys << " keys";
        w.expect_order();
    }
}

TEST(Trial, AHeldRouteTriesWhatIsNewAtOnce) {
    Names w;
    w.refused["secret"] = forbidden();
    w.add_named(1);
    w.lend_one("secret", "k");
    w.run_for(300s);
    EXPECT_EQ(w.state(1), RouteState::held) << "it has nothing else";
    EXPECT_TRUE(w.dead.empty());
    w.lend_one("good", "k");
    w.lend_one("good", "other");
    w.run();
    EXPECT_EQ(w.state(1), RouteState::active);
    EXPECT_EQ(w.came["other"], (Ids{3}));
    EXPECT_TRUE(w.came["k"].empty()) << "its key waits";
    w.run_for(100s);
    EXPECT_EQ(w.dead.size(), 1U) << "others were delivered, and a minute has passed since";
    EXPECT_EQ(w.came["k"], (Ids{2}));
    EXPECT_EQ(w.told("is held"), 1U);
}

// A driver that has to open a channel first.
TEST(Trial, AProbeThatFindsNoRoomWaitsAsLongAfterItsRefusal) {
    Names w;
    w.everything = forbidden();
    w.add_named(1);
    w.lend_one("a", "a");
    w.run_for(1s);
    std::vector<broker::TimePoint> tried;
    w.broker.on_offer = [&](const Sent&) { tried.push_back(w.now); };
    for (int i = 0; i < 200; ++i) {
        w.broker.closed_lanes = {1};
        w.run_for(100ms);
        w.broker.closed_lanes.clear();
        w.drive();
        w.drive();
    }
    ASSERT_GE(tried.size(), 3u);
    for (std::size_t i = 1; i < tried.size(); ++i) EXPECT_GE(tried[i] - tried[i - 1], 500ms) << i;
}

TEST(Trial, TheKeyOfAForbiddenEventIsKeptOnAParkedKey) {
    Names w;
    w.refused["secret"] = forbidden();
    w.add_named(1);
    w.lend_keys("secret", 2, 1);
    for (int i = 0; i < 40 && !w.dispatcher.stuck(); ++i) w.flow(500ms);
    ASSERT_TRUE(w.dispatcher.stuck());
    w.dispatcher.park_key_of(1, 1, 2);
    std::vector<Ev> again(2, Ev{"secret", "secret key 0"});
    again[0].id = 1;
    again[1].id = 2;
    w.lend(again, 2);
    w.flow(50s);
    EXPECT_TRUE(w.dead.empty());
    w.flow(15s);
    ASSERT_EQ(w.dead.size(), 2U) << "what the route delivers beside it counts";
    EXPECT_EQ(w.dead[0].id, 1);
    EXPECT_EQ(w.dead[1].id, 2) << "it was refused as long, for they were under way together";
    EXPECT_GE(w.dead[1].attempts, 2U);
}

TEST(Trial, AnUnclearAnswerToEverythingLosesNothing) {
    for (const auto* options : {"{}", R"({"max_attempts":1})", R"({"max_attempts":3,"order":"strict"})"}) {
        Names w;
        w.add_named(1, options);
        w.add_named(2, options);
        w.lend_keys("a", 20, 5);
        w.run_for(1s);
        w.everything = unclear();
        w.lend_keys("a", 200, 20);
        w.lend({Ev{"a"}, Ev{"a"}});
        w.run_for(1s);
        EXPECT_EQ(w.state(1), RouteState::retrying) << options;
        EXPECT_EQ(w.told("route \"r1\" to broker \"memory\" (memory://here) is refused all that it has: "), 1U);
        const auto before = w.broker.sent.size();
        w.run_for(600s);
        EXPECT_TRUE(w.dead.empty()) << options;
        EXPECT_EQ(w.notices.size(), 2U) << "one a route";
        EXPECT_LE(w.broker.sent.size() - before, 2 * 1200U);
        EXPECT_NE(w.status(1).last_error.find("ERR Connection refused (event "), std::string_view::npos);
        w.lend_keys("a", 100, 20);
        w.everything.reset();
        w.run_for(2s);
        EXPECT_EQ(w.arrived(), 2 * 322U) << options;
        w.run_for(60s);
        EXPECT_TRUE(w.dead.empty());
        EXPECT_EQ(w.state(1), RouteState::active);
        EXPECT_EQ(w.told("delivers again after"), 2U);
    }
}

TEST(Trial, OrderOfKeysIsKeptThroughAnUnclearTime) {
    Names w;
    w.add_named(1);
    w.everything = unclear();
    w.lend_keys("a", 300, 20);
    w.run_for(30s);
    w.lend_keys("a", 300, 20);
    w.run_for(30s);
    w.everything.reset();
    w.run_for(5s);
    EXPECT_EQ(w.arrived(), 600U);
    w.expect_order();
}

TEST(Trial, AnUnclearAnswerToOneEventAloneIsADeadLetterWhileOthersAreDelivered) {
    Names w;
    w.refused["odd"] = unclear("ERR odd");
    w.add_named(1);
    w.lend_one("odd", "k");
    w.run();
    w.lend_one("good", "k");
    w.run_for(300s);
    EXPECT_EQ(w.state(1), RouteState::retrying);
    EXPECT_TRUE(w.dead.empty()) << "nothing else has been delivered";
    w.flow(55s);
    EXPECT_EQ(w.state(1), RouteState::active);
    EXPECT_TRUE(w.dead.empty());
    w.flow(35s);
    ASSERT_EQ(w.dead.size(), 1U);
    EXPECT_EQ(w.dead[0].error, "ERR odd");
    EXPECT_EQ(w.came["k"], (Ids{2}));
}

// Others that were delivered earlier, or of other routes, prove nothing of a later time.
TEST(Trial, AnUnclearEventOfATimeInWhichNothingIsDeliveredLives) {
    Names w;
    w.add_named(1, R"({"max_attempts":2})", "a.#");
    w.add_named(2, "{}", "b.#");
    for (int i = 0; i < 5; ++i) {
        w.refused["a"] = unclear();
        w.lend_keys("a", 20, 20);
        w.flow(65s, "b");  // the other route delivers
        EXPECT_TRUE(w.dead.empty());
        w.refused.clear();
        w.run_for(3s);
        EXPECT_EQ(w.status(1).delivered, 20U * (static_cast<unsigned>(i) + 1));
    }
    EXPECT_TRUE(w.dead.empty());
}

TEST(Trial, MaxAttemptsCountsNoAttemptOfATimeInWhichNothingIsDelivered) {
    for (const auto* options : {R"({"max_attempts":1})", R"({"max_attempts":3})"}) {
        for (unsigned keys : {1U, 20U}) {
            Names w;
            w.add_named(1, options);
            w.lend_keys("a", 20, keys);
            w.run_for(1s);
            w.everything = retry("OOM command not allowed");
            w.lend_keys("a", 100, keys);
            w.run_for(600s);
            EXPECT_TRUE(w.dead.empty()) << options << ", " << keys << " keys";
            w.everything.reset();
            w.run_for(60s);
            EXPECT_EQ(w.arrived(), 120U) << options << ", " << keys << " keys";
            EXPECT_TRUE(w.dead.empty()) << options << ", " << keys << " keys";
            w.expect_order();
        }
    }
}

TEST(Trial, MaxAttemptsCountsForWhatStandsBehindInTheKey) {
    Names w;
    w.refused["full"] = retry("nack");
    w.add_named(1, R"({"max_attempts":3})");
    w.lend({Ev{"full", "k"}, Ev{"full", "k"}, Ev{"full", "k"}, Ev{"good", "other"}});
    w.run_for(10s);
    ASSERT_EQ(w.dead.size(), 3U);
    for (const auto& dead : w.dead) EXPECT_EQ(dead.attempts, 3U);
    EXPECT_EQ(w.came["other"], (Ids{4}));
}

// A destination with placeholders: what is not there may be one event's trouble as well.
TEST(Trial, AMissingDestinationOfOneEventHoldsNobody) {
    Names w;
    w.refused["missing"] = fix("NOT_FOUND");
    w.add_named(1);
    w.lend_one("missing", "k");
    w.lend_keys("good", 45, 9);
    w.run_for(5s);
    EXPECT_EQ(w.arrived(), 45U);
    EXPECT_EQ(w.state(1), RouteState::active);
    w.flow(200s);
    EXPECT_TRUE(w.dead.empty()) << "somebody may declare it";
    EXPECT_EQ(w.state(1), RouteState::active);
    EXPECT_LE(w.told("is held"), 1U);
    w.refused.clear();
    w.flow(31s);
    EXPECT_EQ(w.came["k"], (Ids{1}));
}

TEST(Trial, AHeldRouteIsFreeWhenItsTopicsNoLongerTakeTheEvent) {
    for (const auto& answer : {forbidden(), fix("NOT_FOUND"), unclear()}) {
        Names w;
        w.refused["secret"] = answer;
        w.add_named(1);
        w.lend_one("secret", "k");
        w.lend_one("secret");
        w.run_for(100s);
        EXPECT_NE(w.state(1), RouteState::active);
        w.dispatcher.change_route(World::route(1, "good.#", "{}", "queue:{topic}"));
        const auto before = w.broker.sent.size();
        w.run_for(60s);
        EXPECT_EQ(w.state(1), RouteState::active);
        EXPECT_TRUE(w.status(1).idle);
        EXPECT_EQ(w.broker.sent.size(), before) << "what it no longer takes is not offered";
        w.lend_one("good", "k");
        w.run();
        EXPECT_EQ(w.arrived(), 1U);
        EXPECT_EQ(w.lent_chunks(), 0U);
    }
}

TEST(Trial, WhatAChangedRouteDoesNotTakeFinishesButComesNotBack) {
    World w;
    w.broker.silent = true;
    w.add(1, "#", R"({"order":"strict"})");
    w.lend({Ev{"a"}, Ev{"a"}, Ev{"a"}, Ev{"b"}, Ev{"a", "k"}, Ev{"a", "k"}, Ev{"b", "k"}});
    w.run();
    w.dispatcher.change_route(World::route(1, "b"));
    w.broker.answer(1, 1, {});
    w.broker.answer(1, 2, retry("later"));
    w.broker.answer(1, 3, {Verdict::unknown, Remedy::retry, "lane lost"});
    w.broker.answer_all();
    w.run();
    w.broker.answer_all();
    w.run_for(10s);
    w.broker.answer_all();
    w.run();
    EXPECT_EQ(w.broker.ids(1), (Ids{1, 2, 3, 4, 5, 7}));
    EXPECT_EQ(w.status(1).delivered, 4U);
    EXPECT_TRUE(w.status(1).idle);
    EXPECT_EQ(w.lent_chunks(), 0U);
}

TEST(Trial, MaxAgeFreesAHeldRoute) {
    for (const auto& answer : {forbidden("NO"), fix("NO"), unclear("NO")}) {
        Names w;
        w.everything = answer;
        w.add_named(1, R"({"max_age":"10 s"})");
        w.lend_keys("a", 20, 5);
        w.run_for(9s);
        EXPECT_NE(w.state(1), RouteState::active);
        EXPECT_TRUE(w.dead.empty());
        w.run_for(1100ms);
        ASSERT_EQ(w.dead.size(), 20U) << "not only when the next probe is due";
        EXPECT_EQ(w.dead[0].error, "max_age (10 s) reached: NO");
        EXPECT_EQ(w.state(1), RouteState::active);
        EXPECT_TRUE(w.status(1).idle);
    }
}

TEST(Trial, AnOperatorsChangeTriesAtOnce) {
    Names w;
    w.refused["full"] = retry("nack");
    w.add_named(1);
    w.lend_one("full", "k");
    w.flow(200s);
    w.refused.clear();
    w.dispatcher.pause_route(1, true);
    w.dispatcher.pause_route(1, false);
    w.dispatcher.release_route(1);
    w.run();
    EXPECT_EQ(w.came["k"], (Ids{1}));
}

TEST(Trial, TheEndOfALinkDoesNotHideTheWordsThatCameBefore) {
    World w;
    w.broker.on_message = [&](const Sent& sent) -> std::optional<Answer> {
        if (sent.id != 1) return Answer{};
        w.broker.leave("the server closed the connection");
        return forbidden("Not authorized (0x87)");
    };
    w.dispatcher.add_route(World::route(1, "#", "{}", "queue:{topic}"), 1);
    w.lend({Ev{"$SYS", "k"}});
    for (int i = 0; i < 20; ++i) {
        w.run_for(500ms);
        EXPECT_EQ(w.status(1).last_error, "Not authorized (0x87) (event 1 to queue \"$SYS\")");
    }
    w.broker.refuses_links = broker::Link{broker::LinkState::down, Remedy::retry, "connection refused"};
    w.broker.cut("gone");
    w.run_for(5s);
    EXPECT_EQ(w.status(1).last_error, "connection refused") << "that is another trouble";
}

TEST(Trial, LongNamesAreShortenedInErrors) {
    Names w;
    std::string topic = "x";
    while (topic.size() < 240) topic += "\xC3\xA4";
    w.refused[topic] = park("too large");
    w.add_named(1);
    w.lend_one(topic);
    w.run();
    const std::string error(w.status(1).last_error);
    EXPECT_LT(error.size(), 200U);
    EXPECT_EQ(error.find("too large (event 1 to queue \"x"), 0U) << error;
    EXPECT_NE(error.find("\xC3\xA4...\")"), std::string::npos) << error;
}

TEST(Trial, MuchThatIsForbiddenStaysWithinTheLimits) {
    delivery::DispatcherLimits limits;
    limits.events = 100;
    Names w(limits);
    w.refused["secret"] = forbidden();
    w.add_named(1);
    w.lend_keys("secret", 100, 100);
    w.run_for(60s);
    EXPECT_EQ(w.state(1), RouteState::held);
    EXPECT_FALSE(w.dispatcher.hungry(1));
    EXPECT_FALSE(w.dispatcher.stuck()) << "more keys than a route may have parked keys";

    Names few(limits);
    few.refused["secret"] = forbidden();
    few.add_named(1);
    few.lend_keys("secret", 100, 1);
    few.run_for(1s);
    EXPECT_TRUE(few.dispatcher.stuck()) << "one key fills all that may be lent: others have had no chance";
}

// Keys fill all that may be lent, are parked, and nothing is left on the route itself.
TEST(Trial, ARouteIsHeldAsLongAsWhatIsBesideItIsRefused) {
    for (const bool fixed : {true, false}) {
        delivery::DispatcherLimits limits;
        limits.events = 100;
        Names w(limits);
        w.everything = forbidden();
        w.add_named(1, R"({"max_age":"300 s"})");
        for (const unsigned key : {1U, 2U}) {
            std::vector<Ev> events(100, Ev{"secret", "k" + std::to_string(key)});
            w.lend(events);
            w.run_for(1s);
            ASSERT_TRUE(w.dispatcher.stuck());
            w.dispatcher.park_key_of(1, key, key + 1);
            for (unsigned i = 0; i < 100; ++i) events[i].id = (key - 1) * 100 + i + 1;
            w.lend(events, key + 1);
        }
        w.run_for(200s);
        EXPECT_EQ(w.state(1), RouteState::held) << "both parked keys are refused all that they have";
        EXPECT_TRUE(w.dead.empty());
        if (fixed) {
            w.everything.reset();
            w.run_for(31s);
            EXPECT_EQ(w.arrived(), 200U);
            EXPECT_EQ(w.told("delivers again after"), 1U);
        } else {
            w.run_for(150s);
            EXPECT_EQ(w.dead.size(), 200U) << "too old";
            for (const unsigned key : {1U, 2U}) {
                w.dispatcher.end_parked_key(1, key);
                w.dispatcher.remove_parked_key(1, key);
            }
            w.take_report();
            EXPECT_EQ(w.told("has nothing left of what was refused"), 1U);
        }
        EXPECT_EQ(w.state(1), RouteState::active);
        EXPECT_EQ(w.told("is held"), 1U);
        w.expect_order();
    }
}

}  // namespace
}  // namespace eventbus::test
