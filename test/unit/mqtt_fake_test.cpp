// What it is: tests of the MQTT driver against brokers that refuse, delay, lie and hang up.
// Who calls it: make -C test/unit mqtt.
// Never: asserts how fast something is.
#include <gtest/gtest.h>

#include <algorithm>

#include "mqtt_support.hpp"

using namespace eventbus;
using namespace eventbus::test;

namespace {

void until_the_end(Peer& peer) {
    peer.wait_for_end();
}

// What becomes of a login that is answered with this code.
Link refused_with(unsigned code, const std::string& options = R"({"version":"5"})") {
    FakeBroker broker({[&](Peer& peer) {
        peer.hello();
        peer.connack(code);
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url(), options));
    EXPECT_TRUE(pump.down());
    return pump.link;
}

// What becomes of a message that is answered with this code.
Settlement answered_with(unsigned type, unsigned code, const std::string& reason = "") {
    FakeBroker broker({[&](Peer& peer) {
        peer.login();
        const Published got = peer.published();
        peer.answer(type, got.id, code, reason);
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url()));
    EXPECT_TRUE(pump.up()) << pump.link.reason;
    EXPECT_TRUE(pump.offer(1, event_of(1), "t", type == pubrec ? 2 : 1));
    EXPECT_TRUE(pump.settles(1));
    return pump.settled[1];
}

}  // namespace

TEST(MqttModule, Face) {
    const Module& module = *eventbus_driver_module();
    EXPECT_EQ(module.build, this_build());
    EXPECT_STREQ(module.protocol, "mqtt");
    ASSERT_EQ(module.kinds.size(), 1u);
    EXPECT_EQ(module.kinds[0], "topic");
    EXPECT_EQ(module.route_options.size(), 2u);
    EXPECT_EQ(module.broker_options.size(), 5u);
}

TEST(MqttModule, Check) {
    const auto complaint = [](const std::string& url, const std::string& options = "{}") -> std::string {
        try {
            mqtt_settings(url, options);
        } catch (const BadInput& error) {
            return error.message();
        }
        return {};
    };
    EXPECT_EQ(complaint("mqtt://u:p@a,b:1884"), "");
    EXPECT_EQ(complaint("mqtt://h/"), "");
    EXPECT_EQ(complaint("wss://h/some/path"), "");
    EXPECT_EQ(complaint("mqtts://h", R"({"ca_file":"/ca.pem"})"), "");
    EXPECT_EQ(complaint("wss://h", R"({"verify":false})"), "");
    EXPECT_EQ(complaint("mqtt://h/path"), "MQTT URL has a path");
    EXPECT_EQ(complaint("mqtt://h?x=1"), "unknown parameter in an MQTT URL");
    EXPECT_EQ(complaint("mqtt:///run/mqtt.sock"), "MQTT brokers are not reached through unix sockets");
    EXPECT_EQ(complaint("mqtt://:secret@h"), "MQTT URL has no user for the password");
    EXPECT_EQ(complaint("mqtt://h", R"({"password_file":"/p"})"), "MQTT URL has no user for the password");
    EXPECT_EQ(complaint("mqtt://h", R"({"ca_file":"/ca.pem"})"), "broker option \"ca_file\" needs TLS");
    constexpr const char* newline = " has the character U+000A, which no MQTT text may have";
    EXPECT_EQ(complaint("mqtt://a%C2%85b:p@h"),
              "user in an MQTT URL has the character U+0085, which no MQTT text may have");
    EXPECT_EQ(complaint("mqtt://a:p%C2%85p@h"), "") << "binary data";
    EXPECT_EQ(complaint("mqtt://h", R"({"client_id":"a\nb"})"), std::string("broker option \"client_id\"") + newline);
    EXPECT_EQ(complaint("mqtt://h", R"({"will":{"topic":"a\nb"}})"),
              std::string("broker option \"will\" has a topic that") + newline);
    EXPECT_EQ(complaint("mqtt://h", R"({"will":{"topic":"a","payload":"\n"}})"), "");
}

TEST(MqttModule, WhatNoDestinationMayHave) {
    const auto flaw = eventbus_driver_module()->flaw_in_name;
    EXPECT_EQ(flaw("a/b"), "");
    EXPECT_EQ(flaw(""), "") << "placeholders may fill it";
    EXPECT_EQ(flaw("a/+"), "has a \"+\", which no MQTT topic may have");
    EXPECT_EQ(flaw("a\x1b"), "has the character U+001B, which no MQTT text may have");
}

TEST(MqttModule, ToldIsWhatDoesNothing) {
    const auto idle = [](const std::string& options) -> std::string {
        BrokerSettings settings;
        settings.url = parse_url("mqtt://h", 1883);
        const IdleOptions found = take_options(settings, options);
        return found.count == 0 ? "" : found.list[0].name;
    };
    EXPECT_EQ(idle("{}"), "");
    EXPECT_EQ(idle(R"({"client_id":"me"})"), "");
    EXPECT_EQ(idle(R"({"session_expiry":3600})"), "");
    EXPECT_EQ(idle(R"({"client_id":"me","session_expiry":0})"), "");
    EXPECT_EQ(idle(R"({"client_id":"me","session_expiry":3600})"), "session_expiry");
    EXPECT_EQ(idle(R"({"version":"3.1.1","session_expiry":60})"), "session_expiry");
}

TEST(MqttLogin, SaysWhatTheSettingsSay) {
    Hello plain, full;
    FakeBroker broker({[&](Peer& peer) {
                           plain = peer.hello();
                           peer.connack();
                           peer.wait_for_end();
                       },
                       [&](Peer& peer) {
                           full = peer.hello();
                           peer.connack();
                           peer.wait_for_end();
                       }});
    Pump first(mqtt_settings(broker.url()));
    ASSERT_TRUE(first.up()) << first.link.reason;
    BrokerSettings settings = mqtt_settings(broker.url(), R"({"client_id":"me","heartbeat":11,"version":"5",
                          "will":{"topic":"gone","payload":"bye","qos":1,"retain":true}})");
    settings.url.user = "user";
    settings.url.has_user = true;
    settings.password = "secret";
    first.destroy();
    Pump second(settings);
    ASSERT_TRUE(second.up()) << second.link.reason;

    EXPECT_EQ(plain.version, 5u);
    EXPECT_EQ(plain.flags, 2u);  // a new process, a clean session
    EXPECT_EQ(plain.keep_alive, 30u);
    EXPECT_EQ(plain.properties, (Pairs{{"session expiry", "3600"}}));
    EXPECT_EQ(plain.client_id.size(), 23u);
    EXPECT_TRUE(std::all_of(plain.client_id.begin(), plain.client_id.end(), [](char c) { return isalnum(c); }));
    EXPECT_EQ(full.flags, 2u | 4u | 8u | 0x20u | 0x40u | 0x80u);
    EXPECT_EQ(full.keep_alive, 11u);
    EXPECT_TRUE(full.properties.empty());  // another may have that id: no session
    EXPECT_EQ(full.client_id, "me");
    EXPECT_EQ(full.will_topic, "gone");
    EXPECT_EQ(full.will_payload, "bye");
    EXPECT_EQ(full.user, "user");
    EXPECT_EQ(full.password, "secret");
}

TEST(MqttLogin, TheClientIdIsOurs) {
    std::vector<std::string> ids;
    FakeBroker broker({[&](Peer& peer) {
        ids.push_back(peer.hello().client_id);
        peer.connack();
        peer.wait_for_end();
    }});
    BrokerSettings settings = mqtt_settings(broker.url());
    for (const char* name : {"a", "a", "b"}) {
        settings.name = name;
        Pump pump(settings);
        ASSERT_TRUE(pump.up()) << pump.link.reason;
    }
    ASSERT_EQ(ids.size(), 3u);
    EXPECT_EQ(ids[0], ids[1]);
    EXPECT_NE(ids[0], ids[2]);
}

TEST(MqttLogin, Refusals) {
    for (const unsigned code : {0x84U, 0x85U, 0x86U, 0x87U, 0x8aU, 0x8cU, 0x9aU, 0x9bU})
        EXPECT_EQ(refused_with(code).remedy, Remedy::fix_settings) << code;
    for (const unsigned code : {0x80U, 0x83U, 0x88U, 0x89U, 0x97U, 0x9cU, 0x9dU, 0x9fU})
        EXPECT_EQ(refused_with(code).remedy, Remedy::retry) << code;
    EXPECT_EQ(refused_with(0x86).reason, "login refused: bad user name or password (0x86)");
    const std::string old = R"({"version":"3.1.1"})";
    EXPECT_EQ(refused_with(3, old).remedy, Remedy::retry);
    EXPECT_EQ(refused_with(3, old).reason, "login refused: server unavailable (0x88)");
    EXPECT_EQ(refused_with(4, old).reason, "login refused: bad user name or password (0x86)");
    EXPECT_EQ(refused_with(5, old).reason, "login refused: not authorized (0x87)");
    EXPECT_EQ(refused_with(5, old).remedy, Remedy::fix_settings);
    EXPECT_EQ(refused_with(1, old).reason, "login refused: unsupported protocol version (0x84)");
}

TEST(MqttLogin, NobodyListens) {
    Pump pump(mqtt_settings("mqtt://127.0.0.1:" + std::to_string(free_port())));
    ASSERT_TRUE(pump.down());
    EXPECT_EQ(pump.link.remedy, Remedy::retry);
    EXPECT_NE(pump.link.reason.find("Connection refused"), std::string::npos) << pump.link.reason;
}

TEST(MqttLogin, HostsInTurn) {
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        peer.wait_for_end();
    }});
    const std::string two = "mqtt://127.0.0.1:" + std::to_string(free_port()) + "," + broker.url().substr(7);
    Pump first(mqtt_settings(two), 0);
    ASSERT_TRUE(first.down());
    Pump second(mqtt_settings(two), 1);
    ASSERT_TRUE(second.up()) << second.link.reason;
}

TEST(MqttLogin, WhatIsNoMQTT) {
    for (const std::string& words :
         {std::string("HTTP/1.1 400 Bad Request\r\n\r\n"), std::string("\x20\xff\xff\xff\xff\x01"),
          std::string("\x20\x01\0", 3), std::string("\x30\x03\0\x01t", 5)}) {
        FakeBroker broker({[&](Peer& peer) {
            peer.hello();
            peer.send(words);
            peer.wait_for_end();
        }});
        Pump pump(mqtt_settings(broker.url(), R"({"version":"5","connect_timeout":5})"));
        ASSERT_TRUE(pump.down());
        EXPECT_EQ(pump.link.remedy, Remedy::retry) << pump.link.reason;
    }
}

// Whoever else answers is named; what to write instead as well.
TEST(MqttLogin, StrangersAreNamed) {
    const auto answered = [](const std::string& words, const std::string& more = "") {
        FakeBroker broker({[&](Peer& peer) {
            peer.hello();
            for (const char byte : words) {  // also where it dribbles
                peer.send(std::string(1, byte));
                std::this_thread::yield();
            }
            if (more.empty()) peer.wait_for_end();
        }});
        Pump pump(mqtt_settings(broker.url(), R"({"connect_timeout":5})"));
        EXPECT_TRUE(pump.down());
        EXPECT_EQ(pump.link.remedy, Remedy::retry);
        return pump.link.reason;
    };
    EXPECT_EQ(answered("HTTP/1.1 400 Bad Request\r\n\r\n").find("the server answers in HTTP (\"HTTP/1."), 0U);
    EXPECT_NE(answered("HTTP/1.1 400 Bad Request\r\n\r\n").find("use ws:// there"), std::string::npos);
    EXPECT_EQ(answered({"\x15\x03\x03\0\x02\x02\x46", 7}),
              "the server speaks TLS on this port: use mqtts:// in the broker's URL");
    EXPECT_EQ(answered({"AMQP\0\0\x09\x01", 8}), "the server speaks AMQP on this port, whose scheme is amqp://");
    EXPECT_EQ(answered("INFO {\"server_id\":1}\r\n"), "the server speaks NATS on this port");
    // However long its line is.
    EXPECT_LT(answered("HTTP/" + std::string(3000, 'x')).size(), 250U);
}

TEST(MqttLogin, DestroyedWhileItConnects) {
    FakeBroker broker({until_the_end});
    Pump pump(mqtt_settings(broker.url()));
    pump.step();
    pump.destroy();
    EXPECT_TRUE(eventually([&] { return broker.connections() == 1; }));
}

TEST(MqttDriver, SaysGoodBye) {
    unsigned last = 0;
    std::atomic<bool> gone = false;
    FakeBroker broker({[&](Peer& peer) {
        peer.login();
        last = peer.wait_for_end();
        gone = true;
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    pump.destroy();
    ASSERT_TRUE(eventually([&] { return gone.load(); }));
    EXPECT_EQ(last, 0xe0U);
}

TEST(MqttDriver, ReasonCodesDecideWhoWaits) {
    const auto expect = [](unsigned code, Verdict verdict, Remedy remedy) {
        for (const unsigned type : {puback, pubrec}) {
            if (type == pubrec && verdict == Verdict::delivered) continue;
            const Settlement settlement = answered_with(type, code);
            EXPECT_EQ(settlement.verdict, verdict) << code << settlement.reason;
            EXPECT_EQ(settlement.remedy, remedy) << code << settlement.reason;
        }
    };
    expect(0x00, Verdict::delivered, Remedy::none);
    expect(0x10, Verdict::delivered, Remedy::none);  // no matching subscribers
    expect(0x80, Verdict::refused, Remedy::retry);
    expect(0x83, Verdict::refused, Remedy::retry);
    expect(0x87, Verdict::refused, Remedy::forbidden);
    expect(0x90, Verdict::refused, Remedy::park);
    expect(0x91, Verdict::refused, Remedy::retry);
    expect(0x95, Verdict::refused, Remedy::park);
    expect(0x97, Verdict::refused, Remedy::retry);
    expect(0x99, Verdict::refused, Remedy::park);
    expect(0x9c, Verdict::refused, Remedy::unclear);  // nothing that a message is answered
    expect(0xf3, Verdict::refused, Remedy::unclear);
    EXPECT_EQ(answered_with(puback, 0x97, "disk full").reason,
              "the broker refused event 1 to topic \"t\": quota exceeded (0x97): disk full");
}

TEST(MqttDriver, QoS2IsDeliveredWhenItIsComplete) {
    std::atomic<bool> go_on = false;
    FakeBroker broker({[&](Peer& peer) {
        peer.login();
        const Published got = peer.published();
        EXPECT_EQ(got.qos, 2u);
        peer.answer(pubrec, got.id, 0x10);
        EXPECT_EQ(peer.release(), got.id);
        eventually([&] { return go_on.load(); });
        peer.answer(pubcomp, got.id);
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
    for (int i = 0; i < 5; ++i) pump.step();
    EXPECT_TRUE(pump.settled.empty());
    go_on = true;
    ASSERT_TRUE(pump.settles(1));
    expect_settled(pump, 1, Verdict::delivered);
}

TEST(MqttDriver, QoS0IsDeliveredWhenItIsWritten) {
    std::atomic<unsigned> got = 0;
    FakeBroker broker({[&](Peer& peer) {
        peer.login();
        for (;;) {
            EXPECT_EQ(peer.published().qos, 0u);
            ++got;
        }
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    for (std::uint64_t i = 1; i <= 5; ++i) ASSERT_TRUE(pump.offer(i, event_of(1), "t", 0));
    ASSERT_TRUE(pump.settles(5));
    for (std::uint64_t i = 1; i <= 5; ++i) expect_settled(pump, i, Verdict::delivered);
    EXPECT_TRUE(eventually([&] { return got == 5; }));
}

TEST(MqttDriver, TheReceiveMaximumIsKept) {
    std::atomic<unsigned> most = 0, answered = 0;
    FakeBroker broker({[&](Peer& peer) {
        peer.login(property(0x21, 3, 2));
        std::vector<unsigned> open;
        while (answered < 20) {
            open.push_back(peer.published().id);
            most = std::max<unsigned>(most, static_cast<unsigned>(open.size()));
            // The first three stand open until the driver has been asked for a fourth.
            if (open.size() < 3) continue;
            for (const unsigned id : open) peer.answer(puback, id);
            answered += static_cast<unsigned>(open.size());
            open.clear();
        }
    }});
    Pump pump(mqtt_settings(broker.url(), R"({"window":500})"));
    ASSERT_TRUE(pump.up());
    std::uint64_t offered = 0;
    for (std::uint64_t i = 1; i <= 4; ++i) offered += pump.offer(i, event_of(1)) ? 1 : 0;
    EXPECT_EQ(offered, 3u);
    for (std::uint64_t i = offered + 1; i <= 21; ++i) ASSERT_TRUE(pump.offers(i, event_of(1)));
    ASSERT_TRUE(pump.settles(21));
    EXPECT_EQ(most, 3u);
}

TEST(MqttDriver, TheWindowOptionIsKept) {
    FakeBroker broker({[&](Peer& peer) {
        peer.login();
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url(), R"({"window":2})"));
    ASSERT_TRUE(pump.up());
    EXPECT_TRUE(pump.offer(1, event_of(1)));
    EXPECT_TRUE(pump.offer(2, event_of(2)));
    EXPECT_FALSE(pump.offer(3, event_of(3)));
}

TEST(MqttDriver, WhatTheBrokerSaidOfItsLimits) {
    FakeBroker broker({[&](Peer& peer) {
        peer.login(property(0x27, 300, 4) + property(0x24, 0, 1) + property(0x25, 0, 1));
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    const std::string large(400, 'x');
    ASSERT_TRUE(pump.offer(1, event_of(1, large), "t", 0));
    ASSERT_TRUE(pump.offer(2, event_of(2), "t", 1));
    ASSERT_TRUE(pump.offer(3, event_of(3), "t", 0, true));
    ASSERT_TRUE(pump.offer(4, event_of(4), "t", 0));
    ASSERT_TRUE(pump.settles(4));
    expect_settled(pump, 1, Verdict::refused, Remedy::park, "too large for the broker: ");
    expect_settled(pump, 2, Verdict::refused, Remedy::fix_settings, "QoS 0 at most");
    expect_settled(pump, 3, Verdict::refused, Remedy::fix_settings, "does not retain");
    expect_settled(pump, 4, Verdict::delivered);
}

TEST(MqttDriver, ABrokerThatFallsSilentIsFound) {
    FakeBroker broker({[](Peer& peer) {
        peer.login(property(0x13, 1, 2));  // server keep alive: 1 s
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1)));
    ASSERT_TRUE(pump.down());
    EXPECT_EQ(pump.link.reason, "the broker was silent for 2 s");
    EXPECT_EQ(pump.link.remedy, Remedy::retry);
    expect_settled(pump, 1, Verdict::unknown, Remedy::retry);
}

// The kernel takes what is sent to a broker that reads nothing any more.
TEST(MqttDriver, ABrokerThatFallsSilentIsFoundWhileEventsAreSent) {
    FakeBroker broker({[](Peer& peer) {
        peer.login(property(0x13, 1, 2));
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    std::uint64_t offered = 0;
    TimePoint next = Clock::now();
    const bool found = pump.until([&] {
        if (Clock::now() >= next && pump.offer(offered + 1, event_of(static_cast<std::int64_t>(offered) + 1))) {
            ++offered;
            next += 20ms;  // the window holds out for longer than the heartbeat
        }
        return pump.link.state == LinkState::down;
    });
    ASSERT_TRUE(found);
    EXPECT_GT(offered, 10U);
    EXPECT_LT(offered, 900U);  // before the window was full
    EXPECT_EQ(pump.link.reason, "the broker was silent for 2 s");
}

TEST(MqttDriver, AnIdleConnectionIsKeptAlive) {
    std::atomic<unsigned> pings = 0;
    FakeBroker broker({[&](Peer& peer) {
        peer.login(property(0x13, 1, 2));
        for (;;) {
            unsigned first = 0;
            peer.packet(first);
            if (first != 0xc0) continue;
            ++pings;
            peer.send(std::string("\xd0\0", 2));
        }
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.until([&] { return pings >= 5 || pump.link.state == LinkState::down; }));
    EXPECT_EQ(pump.link.state, LinkState::up) << pump.link.reason;
}

TEST(MqttDriver, WhatTheBrokerSaysWhenItLeaves) {
    const auto said = [](unsigned code) {
        FakeBroker broker({[&](Peer& peer) {
            peer.login();
            peer.published();
            peer.disconnect(code);
        }});
        Pump pump(mqtt_settings(broker.url()));
        EXPECT_TRUE(pump.up());
        EXPECT_TRUE(pump.offer(1, event_of(1)));
        EXPECT_TRUE(pump.down());
        expect_settled(pump, 1, Verdict::unknown, Remedy::retry);
        return pump.link;
    };
    EXPECT_EQ(said(0x8b).reason, "the broker ended the connection: server shutting down (0x8b)");
    EXPECT_EQ(said(0x8b).remedy, Remedy::retry);
    EXPECT_EQ(said(0x8e).remedy, Remedy::retry);
}

TEST(MqttDriver, OneEventThatEndsConnectionsDelaysNoOther) {
    // Whoever brings "poison" is put out; nobody says which message it was.
    const FakeBroker::Script script = [](Peer& peer) {
        peer.login();
        std::vector<Published> open;
        for (;;) {
            const Published got = peer.published();
            if (got.payload == "poison") return peer.disconnect(0x99);
            peer.answer(puback, got.id);
        }
    };
    FakeBroker broker({script});
    std::vector<std::string> payloads = {"a", "poison", "b", "c"};
    std::map<std::string, Settlement> outcome;
    for (int connection = 0; connection < 10 && outcome.size() < payloads.size(); ++connection) {
        Pump pump(mqtt_settings(broker.url()));
        ASSERT_TRUE(pump.up()) << pump.link.reason;
        for (std::size_t i = 0; i < payloads.size(); ++i) {
            if (outcome.contains(payloads[i])) continue;
            pump.offers(i + 1, event_of(static_cast<std::int64_t>(i), payloads[i]));
        }
        pump.until([&] { return pump.link.state == LinkState::down || pump.settled.size() + outcome.size() == 4; });
        for (auto& [ticket, settlement] : pump.settled)
            if (settlement.verdict != Verdict::unknown) outcome.emplace(payloads[ticket - 1], settlement);
    }
    for (const char* fine : {"a", "b", "c"}) EXPECT_EQ(outcome[fine].verdict, Verdict::delivered) << fine;
    EXPECT_EQ(outcome["poison"].verdict, Verdict::refused);
    EXPECT_EQ(outcome["poison"].remedy, Remedy::park);
    EXPECT_EQ(outcome["poison"].reason,
              "the broker ended the connection: payload format invalid (0x99), at event 1 to topic \"t\"");
}

TEST(MqttDriver, CutBetweenPublishAndPuback) {
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        for (int i = 0; i < 3; ++i) peer.published();
        peer.answer(puback, 1);
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    for (std::uint64_t i = 1; i <= 3; ++i) ASSERT_TRUE(pump.offer(i, event_of(1)));
    ASSERT_TRUE(pump.down());
    EXPECT_EQ(pump.link.reason, "the server closed the connection");
    expect_settled(pump, 1, Verdict::delivered);
    expect_settled(pump, 2, Verdict::unknown, Remedy::retry);
    expect_settled(pump, 3, Verdict::unknown, Remedy::retry);
    EXPECT_FALSE(pump.offer(4, event_of(4)));
    EXPECT_TRUE(pump.driver().interest().fd < 0);
    EXPECT_EQ(pump.driver().wake_at(), TimePoint::max());
}

TEST(MqttDriver, AnswersToNothingAreNothing) {
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        const Published got = peer.published();
        peer.answer(puback, 0);
        peer.answer(puback, 77);
        peer.answer(pubrec, got.id);
        peer.answer(pubcomp, got.id);
        peer.answer(puback, got.id);
        peer.answer(puback, got.id);
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer(1, event_of(1)));
    ASSERT_TRUE(pump.settles(1));
    for (int i = 0; i < 3; ++i) pump.step();
    EXPECT_EQ(pump.link.state, LinkState::up) << pump.link.reason;
}

TEST(MqttDriver, ABrokerThatReadsSlowly) {
    std::atomic<bool> read_on = false;
    const std::string large(3 << 20, 'x');
    FakeBroker broker({[&](Peer& peer) {
        peer.login();
        eventually([&] { return read_on.load(); });
        for (int i = 0; i < 4; ++i) {
            const Published got = peer.published();
            EXPECT_TRUE(got.payload == large);
            peer.answer(puback, got.id);
        }
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up());
    std::uint64_t offered = 0;
    while (offered < 10 && pump.offer(offered + 1, event_of(1, large))) {
        ++offered;
        pump.step();
    }
    EXPECT_LT(offered, 10u);  // what the socket does not take is not piled up
    read_on = true;
    for (; offered < 4; ++offered) ASSERT_TRUE(pump.offers(offered + 1, event_of(1, large)));
    ASSERT_TRUE(pump.settles(4));
}

TEST(MqttDriver, BytesComeOneByOne) {
    FakeBroker broker({[](Peer& peer) {
        peer.hello();
        for (const char c : std::string("\x20\x06\0\0\x03\x21\0\x05", 8)) {
            peer.send(std::string(1, c));
            std::this_thread::yield();
        }
        const Published got = peer.published();
        for (const char c : std::string("\x40\x02", 2) + static_cast<char>(got.id >> 8) + static_cast<char>(got.id))
            peer.send(std::string(1, c));
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up()) << pump.link.reason;
    ASSERT_TRUE(pump.offer(1, event_of(1)));
    ASSERT_TRUE(pump.settles(1));
    expect_settled(pump, 1, Verdict::delivered);
}
