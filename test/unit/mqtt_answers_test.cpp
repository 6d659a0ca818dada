// What it is: tests of the MQTT driver against brokers that answer with something else, or not at all.
// Who calls it: make -C test/unit mqtt.
// Never: asserts how fast something is.
#include <gtest/gtest.h>

#include <algorithm>

#include "mqtt_support.hpp"

using namespace eventbus;
using namespace eventbus::test;

namespace {

constexpr const char* patient_for_a_second = R"({"confirm_timeout":1})";

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

// RabbitMQ's MQTT plugin, and whoever else grants no more than QoS 1. Or one stray answer: others are judged by their
// own.
TEST(MqttAnswers, AQoS2ThatIsAnsweredByPubackIsDeliveredAndTheRouteIsTold) {
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        for (int i = 0; i < 4; ++i) peer.answer(puback, peer.published().id);
        const auto id = peer.published().id;
        peer.answer(pubrec, id);
        EXPECT_EQ(peer.release(), id);
        peer.answer(pubcomp, id);
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url(), R"({"window":3})"));
    ASSERT_TRUE(pump.up());
    for (std::uint64_t i = 1; i <= 3; ++i) ASSERT_TRUE(pump.offer(i, event_of(1), "t", 2));
    ASSERT_TRUE(pump.settles(3));
    for (std::uint64_t i = 1; i <= 3; ++i)
        expect_settled(pump, i, Verdict::delivered, Remedy::fix_settings,
                       "the broker takes QoS 1 at most (it answers QoS 2 with PUBACK), the route has QoS 2");
    ASSERT_TRUE(pump.offers(4, event_of(4), "t", 1));  // the room in the window is free again
    ASSERT_TRUE(pump.offers(5, event_of(5), "t", 2));
    ASSERT_TRUE(pump.settles(5));
    expect_settled(pump, 4, Verdict::delivered);
    expect_settled(pump, 5, Verdict::delivered);
}

TEST(MqttAnswers, ARefusalCountsWhateverPacketItComesIn) {
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        peer.answer(pubrec, peer.published().id, 0x90);
        peer.answer(puback, peer.published().id, 0x97);
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1), "t", 1));
    ASSERT_TRUE(pump.offer(2, event_of(2), "t", 2));
    ASSERT_TRUE(pump.settles(2));
    expect_settled(pump, 1, Verdict::refused, Remedy::park, "event 1 to topic \"t\": topic name invalid (0x90)");
    expect_settled(pump, 2, Verdict::refused, Remedy::retry, "event 2 to topic \"t\": quota exceeded (0x97)");
}

TEST(MqttAnswers, AMessageThatIsForgottenBetweenItsTwoAnswersIsNotDelivered) {
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        const unsigned id = peer.published().id;
        peer.answer(pubrec, id);
        peer.answer(pubcomp, peer.release(), 0x92);
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
    ASSERT_TRUE(pump.settles(1));
    expect_settled(pump, 1, Verdict::refused, Remedy::retry, "packet identifier not found (0x92)");
}

TEST(MqttAnswers, AnIdThatTheBrokerCallsInUseIsNotUsedAgain) {
    unsigned first = 0, second = 0;
    FakeBroker broker({[&](Peer& peer) {
        peer.login();
        first = peer.published().id;
        peer.answer(pubrec, first, 0x91);
        EXPECT_EQ(peer.release(), first);
        second = peer.published().id;
        peer.answer(pubrec, second);
        peer.answer(pubcomp, peer.release());
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
    ASSERT_TRUE(pump.settles(1));
    expect_settled(pump, 1, Verdict::refused, Remedy::retry);
    ASSERT_TRUE(pump.offers(2, event_of(1), "t", 2));
    ASSERT_TRUE(pump.settles(2));
    expect_settled(pump, 2, Verdict::delivered);
    EXPECT_NE(first, second);
}

TEST(MqttAnswers, WhatIsNeverAnsweredIsRefusedForNowAndOthersGoOn) {
    std::vector<unsigned> silent;
    FakeBroker broker({[&](Peer& peer) {
        peer.login();
        for (;;) {
            const Published got = peer.published();
            if (got.payload == "silent") {
                silent.push_back(got.id);
                if (silent.size() == 1) peer.answer(pubrec, got.id);  // which is no answer to QoS 1
            } else {
                peer.answer(puback, got.id);
            }
        }
    }});
    Pump pump(mqtt_settings(broker.url(), patient_for_a_second));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(17, "silent"), "a/b"));
    for (std::uint64_t ticket = 2; !pump.settled.contains(1) && ticket < 100'000; ++ticket) {
        ASSERT_TRUE(pump.offers(ticket, event_of(static_cast<std::int64_t>(ticket), "x")));
        ASSERT_TRUE(pump.until([&] { return pump.settled.contains(ticket) || pump.settled.contains(1); }));
    }
    expect_settled(pump, 1, Verdict::refused, Remedy::retry,
                   "event 17 to topic \"a/b\": no acknowledgement within 1 s; the broker answered PUBREC, which does "
                   "not belong to a message with QoS 1");
    // Again, under another id: the broker may know the first one.
    ASSERT_TRUE(pump.offer(1'000'000, event_of(17, "silent"), "a/b"));
    ASSERT_TRUE(pump.offer(1'000'001, event_of(18, "x")));
    ASSERT_TRUE(pump.until([&] { return pump.settled.contains(1'000'001); }));
    EXPECT_EQ(pump.link.state, LinkState::up) << pump.link.reason;
    ASSERT_EQ(silent.size(), 2u);
    EXPECT_NE(silent[0], silent[1]);
}

TEST(MqttAnswers, ALateAnswerGivesTheIdBack) {
    std::atomic<bool> answer = false;
    FakeBroker broker({[&](Peer& peer) {
        peer.login();
        const unsigned id = peer.published().id;
        eventually([&] { return answer.load(); });
        peer.answer(puback, id);
        const Published again = peer.published();
        EXPECT_EQ(again.id, 2u);
        peer.answer(puback, again.id);
        EXPECT_EQ(peer.published().id, 2u);
        EXPECT_EQ(peer.published().id, 1u);
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url(), patient_for_a_second));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1)));
    ASSERT_TRUE(pump.settles(1));
    expect_settled(pump, 1, Verdict::refused, Remedy::retry);
    ASSERT_TRUE(pump.offer(2, event_of(1)));
    answer = true;
    ASSERT_TRUE(pump.settles(2));
    expect_settled(pump, 2, Verdict::delivered);
    ASSERT_TRUE(pump.offer(3, event_of(3)));
    ASSERT_TRUE(pump.offer(4, event_of(4)));
    for (int i = 0; i < 3; ++i) pump.step();
    EXPECT_EQ(pump.settled.size(), 2u);
}

TEST(MqttAnswers, WhereTooManyAreNotAnsweredTheConnectionIsMadeAnew) {
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url(), R"({"confirm_timeout":1,"window":4})"));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1)));
    ASSERT_TRUE(pump.offer(2, event_of(2)));
    ASSERT_TRUE(pump.down());
    for (const std::uint64_t ticket : {1, 2})
        expect_settled(pump, ticket, Verdict::refused, Remedy::retry, "no acknowledgement within 1 s");
    EXPECT_TRUE(has(pump.link.reason, "2 messages were not acknowledged")) << pump.link.reason;
    EXPECT_EQ(pump.link.remedy, Remedy::retry);
    EXPECT_TRUE(pump.link.goodbye);  // no message breaks the link
}

// Exactly once, also where an answer is late: under its old id, which wants another connection.
TEST(MqttAnswers, AQoS2ThatIsNeverAnsweredComesAgainUnderItsId) {
    FakeBroker broker({[](Peer& peer) {
                           peer.login();
                           EXPECT_EQ(peer.published().id, 1u);
                           peer.wait_for_end();
                       },
                       [](Peer& peer) {
                           EXPECT_EQ(peer.hello().flags & clean_start, 0u);
                           peer.connack(0, true);
                           const Published got = peer.published();
                           EXPECT_TRUE(got.again);
                           EXPECT_EQ(got.id, 1u);
                           peer.answer(pubrec, got.id);
                           peer.answer(pubcomp, peer.release());
                           peer.wait_for_end();
                       }});
    Pump pump(mqtt_settings(broker.url(), patient_for_a_second));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
    ASSERT_TRUE(pump.settles(1));
    expect_settled(pump, 1, Verdict::refused, Remedy::retry, "no acknowledgement within 1 s");
    EXPECT_FALSE(pump.offer(2, event_of(1), "t", 2));
    ASSERT_TRUE(pump.down());
    EXPECT_TRUE(has(pump.link.reason, "sent again over a new connection")) << pump.link.reason;
    Pump next(mqtt_settings(broker.url(), patient_for_a_second));
    ASSERT_TRUE(next.up()) << next.link.reason;
    ASSERT_TRUE(next.offers(3, event_of(1), "t", 2));
    ASSERT_TRUE(next.settles(1));
    expect_settled(next, 3, Verdict::delivered);
}

TEST(MqttAnswers, WhatIsReceivedAndNeverCompletedIsReleasedInItsOrder) {
    FakeBroker broker({[](Peer& peer) {
                           peer.login();
                           for (unsigned id = 1; id <= 2; ++id) EXPECT_EQ(peer.published().id, id);
                           for (unsigned id = 1; id <= 2; ++id) {
                               peer.answer(pubrec, id);
                               EXPECT_EQ(peer.release(), id);
                           }
                           peer.wait_for_end();
                       },
                       [](Peer& peer) {
                           peer.hello();
                           peer.connack(0, true);
                           for (unsigned id = 1; id <= 2; ++id) EXPECT_EQ(peer.release(), id);
                           for (unsigned id = 1; id <= 2; ++id) peer.answer(pubcomp, id);
                           peer.wait_for_end();
                       }});
    const BrokerSettings settings = mqtt_settings(broker.url(), R"({"confirm_timeout":1,"window":4})");
    Pump pump(settings);
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(9), "t", 2));
    ASSERT_TRUE(pump.offer(2, event_of(5), "t", 2));
    ASSERT_TRUE(pump.down());
    EXPECT_TRUE(has(pump.link.reason, "2 messages were not acknowledged")) << pump.link.reason;
    Pump next(settings);
    ASSERT_TRUE(next.up()) << next.link.reason;
    ASSERT_TRUE(next.offers(3, event_of(9), "t", 2));
    ASSERT_TRUE(next.offers(4, event_of(5), "t", 2));
    for (const std::uint64_t ticket : {3, 4}) {
        ASSERT_TRUE(next.settles(ticket - 2));
        expect_settled(next, ticket, Verdict::delivered);
    }
}

TEST(MqttAnswers, AQoS2ThatIsAnsweredLateCountsWhenItIsOffered) {
    std::atomic<bool> answer = false, done = false;
    FakeBroker broker({[&](Peer& peer) {
        peer.login();
        const unsigned id = peer.published().id;
        eventually([&] { return answer.load(); });
        peer.answer(pubrec, id);
        peer.answer(pubcomp, peer.release());
        done = true;
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url(), patient_for_a_second));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
    ASSERT_TRUE(pump.settles(1));
    answer = true;
    ASSERT_TRUE(pump.until([&] { return done.load(); }));
    ASSERT_TRUE(pump.offers(2, event_of(1), "t", 2));
    ASSERT_TRUE(pump.settles(2));
    expect_settled(pump, 2, Verdict::delivered);
}

TEST(MqttAnswers, TheBrokersWordsOutliveTheConnection) {
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        peer.answer(puback, peer.published().id, 0x87);
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1), "$SYS/x"));
    ASSERT_TRUE(pump.down());
    expect_settled(pump, 1, Verdict::refused, Remedy::forbidden);
    EXPECT_EQ(pump.link.reason,
              "the broker refused event 1 to topic \"$SYS/x\": not authorized (0x87); then the server closed the "
              "connection");
}

// Some brokers answer 0x87 by ending the connection.
TEST(MqttAnswers, AForbiddenTopicThatEndsTheConnectionIsFound) {
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        for (;;) {
            const Published got = peer.published();
            if (got.topic == "forbidden") return peer.disconnect(0x87);
            peer.answer(puback, got.id);
        }
    }});
    std::map<int, Settlement> outcome;
    std::string last;
    for (int connection = 0; connection < 10 && outcome.size() < 4; ++connection) {
        Pump pump(mqtt_settings(broker.url()));
        ASSERT_TRUE(pump.up()) << pump.link.reason;
        for (int i = 1; i <= 4; ++i) {
            if (!outcome.contains(i))
                pump.offers(static_cast<std::uint64_t>(i), event_of(i), i == 2 ? "forbidden" : "t");
        }
        pump.until([&] { return pump.link.state == LinkState::down || pump.settled.size() + outcome.size() == 4; });
        if (pump.link.state == LinkState::down) {
            EXPECT_EQ(pump.link.remedy, Remedy::retry) << pump.link.reason;
            last = pump.link.reason;
        }
        for (auto& [ticket, settlement] : pump.settled)
            if (settlement.verdict != Verdict::unknown) outcome.emplace(static_cast<int>(ticket), settlement);
    }
    for (const int fine : {1, 3, 4}) EXPECT_EQ(outcome[fine].verdict, Verdict::delivered) << fine;
    EXPECT_EQ(outcome[2].verdict, Verdict::refused);
    EXPECT_EQ(outcome[2].remedy, Remedy::forbidden);
    EXPECT_EQ(outcome[2].reason,
              "the broker ended the connection: not authorized (0x87), at event 2 to topic \"forbidden\"");
    EXPECT_EQ(last, outcome[2].reason);
}

TEST(MqttAnswers, ADisconnectThatConcernsNoMessageHoldsTheBroker) {
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        peer.disconnect(0x87);
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.down());
    EXPECT_EQ(pump.link.remedy, Remedy::fix_settings);
}
