// What it is: tests of what the MQTT driver keeps from one connection to the next: packet ids of QoS 2.
// Who calls it: make -C test/unit mqtt.
// Never: lets a message vanish because its packet id was another one's.
#include <gtest/gtest.h>

#include "mqtt_support.hpp"

using namespace eventbus;
using namespace eventbus::test;

namespace {

// Accepts the login; the session is there when it was not to be a clean one.
Hello resume(Peer& peer, bool has_session = true) {
    const Hello hello = peer.hello();
    peer.connack(0, has_session && (hello.flags & clean_start) == 0);
    return hello;
}

void complete(Peer& peer, unsigned id) {
    peer.answer(pubrec, id);
    EXPECT_EQ(peer.release(), id);
    peer.answer(pubcomp, id);
}

// Offers events 1 to `count` with QoS 2, and waits for the end of the connection.
void offer_until_cut(FakeBroker& broker, std::int64_t count) {
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up()) << pump.link.reason;
    for (std::int64_t i = 1; i <= count; ++i)
        ASSERT_TRUE(pump.offer(static_cast<std::uint64_t>(i), event_of(i), "t", 2));
    ASSERT_TRUE(pump.down());
    for (std::int64_t i = 1; i <= count; ++i)
        expect_settled(pump, static_cast<std::uint64_t>(i), Verdict::unknown, Remedy::retry);
}

// PUBREL completes the message that an earlier connection has sent, and only the next one is published.
void take_release_and_next(Peer& peer) {
    resume(peer);
    const unsigned id = peer.release();
    EXPECT_EQ(id, 1u);
    peer.answer(pubcomp, id);
    EXPECT_EQ(peer.published().payload, "next");
    peer.wait_for_end();
}

void offer_again_and_next(FakeBroker& broker) {
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offers(1, event_of(1), "t", 2));
    ASSERT_TRUE(pump.settles(1));
    expect_settled(pump, 1, Verdict::delivered);
    ASSERT_TRUE(pump.offer(2, event_of(2, "next"), "t", 2));
    pump.step();
}

}  // namespace

// Which events commit first does not follow from their numbers.
TEST(MqttSession, WhatWasReceivedIsReleasedInItsOrder) {
    FakeBroker broker({[](Peer& peer) {
                           resume(peer);
                           for (unsigned id = 1; id <= 3; ++id) EXPECT_EQ(peer.published().id, id);
                           for (unsigned id = 1; id <= 3; ++id) {
                               peer.answer(pubrec, id);
                               EXPECT_EQ(peer.release(), id);
                           }
                       },
                       [](Peer& peer) {
                           resume(peer);
                           for (unsigned id = 1; id <= 3; ++id) EXPECT_EQ(peer.release(), id);
                       },
                       [](Peer& peer) {  // nor is it another one where the last connection was short
                           resume(peer);
                           for (unsigned id = 1; id <= 3; ++id) EXPECT_EQ(peer.release(), id);
                           for (unsigned id = 1; id <= 3; ++id) peer.answer(pubcomp, id);
                           peer.wait_for_end();
                       }});
    constexpr std::int64_t numbers[] = {9, 5, 7};
    for (int connection = 1; connection <= 3; ++connection) {
        Pump pump(mqtt_settings(broker.url()));
        ASSERT_TRUE(pump.up()) << pump.link.reason;
        std::uint64_t ticket = 0;
        for (const std::int64_t number : numbers) ASSERT_TRUE(pump.offers(++ticket, event_of(number), "t", 2));
        if (connection < 3) {
            ASSERT_TRUE(pump.down());
            continue;
        }
        for (ticket = 1; ticket <= 3; ++ticket) {
            ASSERT_TRUE(pump.settles(ticket));
            expect_settled(pump, ticket, Verdict::delivered);
        }
    }
}

TEST(MqttSession, AMessageComesAgainUnderItsId) {
    FakeBroker broker({[](Peer& peer) {
                           EXPECT_EQ(resume(peer).flags & clean_start, clean_start);
                           EXPECT_EQ(peer.published().id, 1u);
                           EXPECT_EQ(peer.published().id, 2u);
                       },
                       [](Peer& peer) {
                           EXPECT_EQ(resume(peer).flags & clean_start, 0u);
                           // Another event comes first; it must not take an id that the broker may know.
                           const Published other = peer.published();
                           EXPECT_EQ(other.id, 3u);
                           EXPECT_FALSE(other.again);
                           complete(peer, other.id);
                           for (unsigned id = 1; id <= 2; ++id) {
                               const Published got = peer.published();
                               EXPECT_EQ(got.id, id);
                               EXPECT_TRUE(got.again);
                           }
                           for (unsigned id = 1; id <= 2; ++id) complete(peer, id);
                           peer.wait_for_end();
                       }});
    offer_until_cut(broker, 2);
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up()) << pump.link.reason;
    ASSERT_TRUE(pump.offer(9, event_of(9), "t", 2));
    ASSERT_TRUE(pump.settles(1));
    ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
    ASSERT_TRUE(pump.offer(2, event_of(2), "t", 2));
    ASSERT_TRUE(pump.settles(3));
    for (const std::uint64_t ticket : {1, 2, 9}) expect_settled(pump, ticket, Verdict::delivered);
}

TEST(MqttSession, AReceivedMessageIsNotSentAgain) {
    FakeBroker broker({[](Peer& peer) {
                           resume(peer);
                           const Published got = peer.published();
                           peer.answer(pubrec, got.id);
                           EXPECT_EQ(peer.release(), got.id);
                       },
                       take_release_and_next});
    offer_until_cut(broker, 1);
    offer_again_and_next(broker);
}

// The session that is there may be one that the CONNECT without an answer has made.
TEST(MqttSession, WhatWasReceivedGoesOutAnewWhereTheSessionIsInDoubt) {
    FakeBroker broker({[](Peer& peer) {
                           resume(peer);
                           const Published first = peer.published();
                           const Published second = peer.published();
                           peer.answer(pubrec, second.id);
                           EXPECT_EQ(peer.release(), second.id);
                           EXPECT_EQ(first.id, 1u);
                       },
                       [](Peer& peer) { EXPECT_EQ(peer.hello().flags & clean_start, 0u); },
                       [](Peer& peer) {
                           EXPECT_EQ(resume(peer).flags & clean_start, 0u);
                           EXPECT_EQ(peer.release(), 2u);
                           peer.answer(pubcomp, 2);
                           const Published first = peer.published();
                           EXPECT_EQ(first.id, 1u);
                           EXPECT_TRUE(first.again);
                           const Published second = peer.published();
                           EXPECT_EQ(second.payload, "second");
                           EXPECT_FALSE(second.again);
                           complete(peer, first.id);
                           complete(peer, second.id);
                       },
                       [](Peer& peer) {  // the doubt is over
                           resume(peer);
                           peer.wait_for_end();
                       }});
    {
        Pump pump(mqtt_settings(broker.url()));
        ASSERT_TRUE(pump.up());
        ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
        ASSERT_TRUE(pump.offer(2, event_of(2, "second"), "t", 2));
        ASSERT_TRUE(pump.down());
    }
    {
        Pump unanswered(mqtt_settings(broker.url()));
        ASSERT_TRUE(unanswered.down());
    }
    {
        Pump pump(mqtt_settings(broker.url()));
        ASSERT_TRUE(pump.up());
        ASSERT_TRUE(pump.offers(1, event_of(1), "t", 2));
        ASSERT_TRUE(pump.offers(2, event_of(2, "second"), "t", 2));
        ASSERT_TRUE(pump.settles(2));
        for (const std::uint64_t ticket : {1, 2}) expect_settled(pump, ticket, Verdict::delivered);
        ASSERT_TRUE(pump.down());
    }
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
}

TEST(MqttSession, ALoginThatIsRefusedLeavesNoDoubt) {
    FakeBroker broker({[](Peer& peer) {
                           resume(peer);
                           peer.answer(pubrec, peer.published().id);
                           peer.release();
                       },
                       [](Peer& peer) {
                           peer.hello();
                           peer.connack(0x88, false);
                       },
                       take_release_and_next});
    offer_until_cut(broker, 1);
    {
        Pump refused(mqtt_settings(broker.url()));
        ASSERT_TRUE(refused.down());
        EXPECT_NE(refused.link.reason.find("login refused"), std::string::npos) << refused.link.reason;
    }
    offer_again_and_next(broker);
}

TEST(MqttSession, ACompleteMessageCountsWhenItIsOffered) {
    std::atomic<bool> complete_now = false;
    FakeBroker broker({[](Peer& peer) {
                           resume(peer);
                           const Published got = peer.published();
                           peer.answer(pubrec, got.id);
                           peer.release();
                       },
                       [&](Peer& peer) {
                           resume(peer);
                           peer.answer(pubcomp, peer.release());
                           complete_now = true;
                           peer.wait_for_end();
                       },
                       [](Peer& peer) {
                           resume(peer, false);
                           peer.wait_for_end();
                       }});
    offer_until_cut(broker, 1);
    {
        Pump idle(mqtt_settings(broker.url()));
        ASSERT_TRUE(idle.until([&] { return complete_now.load(); }));
        for (int i = 0; i < 3; ++i) idle.step();
    }
    Pump pump(mqtt_settings(broker.url()));  // even a broker that has lost the session by now
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
    ASSERT_TRUE(pump.settles(1));
    expect_settled(pump, 1, Verdict::delivered);
}

TEST(MqttSession, WithoutASessionAllIsSentAnew) {
    FakeBroker broker({[](Peer& peer) {
                           resume(peer);
                           peer.published();
                           const Published got = peer.published();
                           peer.answer(pubrec, got.id);
                           peer.release();
                       },
                       [](Peer& peer) {
                           resume(peer, false);
                           for (int i = 0; i < 2; ++i) EXPECT_FALSE(peer.published().again);
                           for (unsigned id = 1; id <= 2; ++id) complete(peer, id);
                           peer.wait_for_end();
                       }});
    offer_until_cut(broker, 2);
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    for (std::uint64_t i = 1; i <= 2; ++i) ASSERT_TRUE(pump.offers(i, event_of(static_cast<std::int64_t>(i)), "t", 2));
    ASSERT_TRUE(pump.settles(2));
    for (std::uint64_t i = 1; i <= 2; ++i) expect_settled(pump, i, Verdict::delivered);
}

TEST(MqttSession, ARouteThatHasChangedGivesTheIdBack) {
    FakeBroker broker({[](Peer& peer) {
                           resume(peer);
                           peer.published();
                       },
                       [](Peer& peer) {
                           resume(peer);
                           EXPECT_EQ(peer.release(), 1u);
                           const Published got = peer.published();
                           EXPECT_EQ(got.qos, 1u);
                           EXPECT_EQ(got.id, 2u);
                           peer.answer(pubcomp, 1);
                           peer.answer(puback, 2);
                           peer.wait_for_end();
                       }});
    offer_until_cut(broker, 1);
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1), "t", 1));
    ASSERT_TRUE(pump.settles(1));
    expect_settled(pump, 1, Verdict::delivered);
}

TEST(MqttSession, AnIdOnItsWayBackMakesTheNextSessionClean) {
    FakeBroker broker({[](Peer& peer) {
                           resume(peer);
                           peer.published();
                       },
                       [](Peer& peer) {
                           resume(peer);
                           peer.release();
                       },
                       [](Peer& peer) {
                           EXPECT_EQ(resume(peer).flags & clean_start, clean_start);
                           peer.wait_for_end();
                       }});
    offer_until_cut(broker, 1);
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1), "t", 0));
    ASSERT_TRUE(pump.down());
    Pump next(mqtt_settings(broker.url()));
    ASSERT_TRUE(next.up()) << next.link.reason;
}

TEST(MqttSession, AnotherHostIsAnotherSession) {
    const auto cut = [](Peer& peer) {
        EXPECT_EQ(resume(peer).flags & clean_start, clean_start);
        peer.published();
    };
    FakeBroker one({cut}), two({cut});
    const std::string both = one.url() + "," + two.url().substr(7);
    for (unsigned attempt = 0; attempt < 3; ++attempt) {
        Pump pump(mqtt_settings(both), attempt);
        ASSERT_TRUE(pump.up()) << pump.link.reason;
        ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
        ASSERT_TRUE(pump.down());
    }
}

TEST(MqttSession, NoneIsKeptWhereNoneIsWanted) {
    for (const char* options : {R"({"session_expiry":0})", R"({"version":"3.1.1"})"}) {
        FakeBroker broker({[](Peer& peer) {
            EXPECT_EQ(resume(peer).flags & clean_start, clean_start);
            EXPECT_FALSE(peer.published().again);
        }});
        for (int i = 0; i < 2; ++i) {
            Pump pump(mqtt_settings(broker.url(), options));
            ASSERT_TRUE(pump.up()) << pump.link.reason;
            ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
            ASSERT_TRUE(pump.down());
        }
    }
}

// mochi-mqtt's word for a repetition; but it may have lost the message between noting the id and passing it on.
TEST(MqttSession, ARepetitionWhoseIdIsInUseIsSentAnew) {
    FakeBroker broker({[](Peer& peer) {
                           resume(peer);
                           peer.published();
                       },
                       [](Peer& peer) {
                           resume(peer);
                           const Published got = peer.published();
                           EXPECT_TRUE(got.again);
                           peer.answer(pubrec, got.id, 0x91);
                           EXPECT_EQ(peer.release(), got.id);
                           peer.answer(pubcomp, got.id);
                           const Published again = peer.published();
                           EXPECT_FALSE(again.again);
                           complete(peer, again.id);
                           peer.wait_for_end();
                       }});
    offer_until_cut(broker, 1);
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offers(1, event_of(1), "t", 2));
    ASSERT_TRUE(pump.settles(1));
    expect_settled(pump, 1, Verdict::refused, Remedy::retry);
    ASSERT_TRUE(pump.offers(2, event_of(1), "t", 2));
    ASSERT_TRUE(pump.settles(2));
    expect_settled(pump, 2, Verdict::delivered);
}

// Another client with our client id: the session that a broker has under it may be that one's.

TEST(MqttSession, AClientIdThatOthersMayHaveKeepsNone) {
    FakeBroker broker({[](Peer& peer) {
        const Hello hello = peer.hello();
        EXPECT_EQ(hello.flags & clean_start, clean_start);
        EXPECT_EQ(hello.client_id, "shared");
        peer.connack();
        const Published got = peer.published();
        EXPECT_EQ(got.id, 1u);
        EXPECT_FALSE(got.again);
        peer.answer(pubrec, got.id);
        peer.release();
    }});
    for (int i = 0; i < 2; ++i) {
        Pump pump(mqtt_settings(broker.url(), R"({"client_id":"shared"})"));
        ASSERT_TRUE(pump.up()) << pump.link.reason;
        ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
        ASSERT_TRUE(pump.down());
        expect_settled(pump, 1, Verdict::unknown, Remedy::retry);
    }
}

TEST(MqttSession, ASessionThatWasTakenOverIsNotOursAnyMore) {
    std::vector<std::string> ids;
    FakeBroker broker({[&](Peer& peer) {
                           ids.push_back(resume(peer).client_id);
                           const Published got = peer.published();
                           peer.answer(pubrec, got.id);
                           peer.release();
                           peer.disconnect(0x8e);
                       },
                       [&](Peer& peer) {
                           const Hello hello = resume(peer);
                           EXPECT_EQ(hello.flags & clean_start, clean_start);
                           ids.push_back(hello.client_id);
                           EXPECT_FALSE(peer.published().again);
                           complete(peer, 1);
                           peer.wait_for_end();
                       }});
    offer_until_cut(broker, 1);
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offers(1, event_of(1), "t", 2));
    ASSERT_TRUE(pump.settles(1));
    expect_settled(pump, 1, Verdict::delivered);
    ASSERT_EQ(ids.size(), 2u);
    EXPECT_NE(ids[0], ids[1]);  // an id of our own that somebody else has is given up
}

TEST(MqttSession, BeingPutOutIsTold) {
    FakeBroker broker({[](Peer& peer) {
        resume(peer);
        peer.disconnect(0x8e);
    }});
    Pump pump(mqtt_settings(broker.url(), R"({"client_id":"shared"})"));
    ASSERT_TRUE(pump.down());
    EXPECT_EQ(pump.link.reason,
              "the broker ended the connection: session taken over by another client with the same client id (0x8e); "
              "our client_id \"shared\"");
    EXPECT_TRUE(pump.link.contested);
    EXPECT_TRUE(pump.link.goodbye);
    EXPECT_EQ(pump.link.remedy, Remedy::retry);
}

// mosquitto 2.0 says nothing when it puts a client out.
TEST(MqttSession, HangUpsWithNothingUnderWayAreTakenForAnotherClient) {
    FakeBroker broker({[](Peer& peer) {
                           resume(peer);
                           peer.published();
                       },
                       [](Peer& peer) {
                           resume(peer);
                           peer.published();
                       },
                       [](Peer& peer) { resume(peer); }});
    const auto connect = [&](const char* options) {
        Pump pump(mqtt_settings(broker.url(), options));
        EXPECT_TRUE(pump.up());
        pump.offer(1, event_of(1));
        EXPECT_TRUE(pump.down());
        return pump.link;
    };
    const char* shared = R"({"client_id":"shared"})";
    EXPECT_FALSE(connect(shared).contested);
    EXPECT_FALSE(connect(shared).contested);  // a message may be to blame
    const Link third = connect(shared);       // which is held back now, to see
    EXPECT_TRUE(third.contested);
    EXPECT_NE(third.reason.find("another client"), std::string::npos) << third.reason;
    for (int i = 0; i < 4; ++i) EXPECT_FALSE(connect("{}").contested);  // nobody has our own
}

TEST(MqttSession, ASessionThatWasToBeForgottenTakesNoQoS2) {
    FakeBroker broker({[](Peer& peer) {
        peer.hello();
        peer.connack(0, true);
        peer.answer(puback, peer.published().id);
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
    ASSERT_TRUE(pump.offer(2, event_of(2), "t", 1));
    ASSERT_TRUE(pump.settles(2));
    expect_settled(pump, 1, Verdict::refused, Remedy::fix_settings, "it keeps a session that it was told to forget");
    expect_settled(pump, 2, Verdict::delivered);
}
