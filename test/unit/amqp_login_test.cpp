// What it is: the AMQP driver's login against a scripted broker, and what a closed connection means.
// Who calls it: make -C test/unit amqp.
// Never: needs a real broker.
#include "amqp_fake_broker.hpp"
#include "amqp_harness.hpp"

namespace eventbus::broker::amqp {
namespace {

using std::chrono::milliseconds;

// Starts a driver at a broker that plays the script, and waits until it is down.
Link outcome(FakeBroker::Script script, const std::string& rest = "", std::uint32_t timeout_ms = 10000) {
    FakeBroker broker(std::move(script));
    BrokerSettings settings = settings_for(url_of(broker.port(), rest));
    settings.options.connect_timeout_ms = timeout_ms;
    Driven driven(settings);
    EXPECT_TRUE(driven.until_state(LinkState::down));
    driven.destroy();
    return driven.link;
}

TEST(AmqpLogin, SaysWhoItIsAndAgreesOnLimits) {
    FakeBroker broker([](Peer& peer) {
        peer.read_protocol_header();
        peer.send(peer.start_bytes());
        const auto method = peer.expect(AMQP_CONNECTION_START_OK_METHOD);
        const auto& ok = method.as<amqp_connection_start_ok_t>();
        EXPECT_EQ(to_view(ok.mechanism), "PLAIN");
        EXPECT_EQ(to_view(ok.response), std::string_view("\0me\0a secret", 12));
        std::string names;
        for (int i = 0; i < ok.client_properties.num_entries; ++i) {
            const auto& entry = ok.client_properties.entries[i];
            names += std::string(to_view(entry.key)) + " ";
            if (to_view(entry.key) == "connection_name") {
                EXPECT_EQ(to_view(entry.value.value.bytes), "pg_eventbus test");
            }
            if (to_view(entry.key) == "capabilities") {
                EXPECT_EQ(entry.value.value.table.num_entries, 5);
            }
        }
        EXPECT_EQ(names, "product version platform connection_name capabilities ");
        peer.method(0, AMQP_CONNECTION_TUNE_METHOD, amqp_connection_tune_t{0, 0, 7});
        const auto tune_method = peer.expect(AMQP_CONNECTION_TUNE_OK_METHOD);
        const auto& tune = tune_method.as<amqp_connection_tune_ok_t>();
        EXPECT_EQ(tune.frame_max, 131072u);
        EXPECT_EQ(tune.channel_max, 65535);
        EXPECT_EQ(tune.heartbeat, 7);
        const auto open = peer.expect(AMQP_CONNECTION_OPEN_METHOD);
        EXPECT_EQ(to_view(open.as<amqp_connection_open_t>().virtual_host), "a/b");
        peer.method(0, AMQP_CONNECTION_OPEN_OK_METHOD, amqp_connection_open_ok_t{});
        peer.expect(AMQP_CONNECTION_CLOSE_METHOD);  // a driver that goes says good-bye
    });
    Driven driven(settings_for("amqp://me:a%20secret@127.0.0.1:" + std::to_string(broker.port()) + "/a%2fb"));
    EXPECT_TRUE(driven.until_state(LinkState::up));
    driven.destroy();
}

TEST(AmqpLogin, RefusedIsForTheSettings) {
    const Link link = outcome([](Peer& peer) {
        peer.read_protocol_header();
        peer.send(peer.start_bytes());
        peer.expect(AMQP_CONNECTION_START_OK_METHOD);
        peer.close_connection(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN");
    });
    expect_down(link, Remedy::fix_settings, "403 ACCESS_REFUSED - Login was refused");
    EXPECT_EQ(link.reason.find("guest"), std::string::npos);
}

TEST(AmqpLogin, ClosedAfterThePasswordIsARefusal) {
    const Link link = outcome([](Peer& peer) {
        peer.read_protocol_header();
        peer.send(peer.start_bytes());
        peer.expect(AMQP_CONNECTION_START_OK_METHOD);
    });
    expect_down(link, Remedy::fix_settings, "login refused");
}

TEST(AmqpLogin, MissingVirtualHostIsForTheSettings) {
    const Link link = outcome([](Peer& peer) {
        peer.read_protocol_header();
        peer.send(peer.start_bytes());
        peer.expect(AMQP_CONNECTION_START_OK_METHOD);
        peer.method(0, AMQP_CONNECTION_TUNE_METHOD, amqp_connection_tune_t{10, 131072, 60});
        peer.expect(AMQP_CONNECTION_TUNE_OK_METHOD);
        peer.expect(AMQP_CONNECTION_OPEN_METHOD);
        peer.close_connection(530, "NOT_ALLOWED - vhost nowhere not found");
    });
    expect_down(link, Remedy::fix_settings, "530 NOT_ALLOWED - vhost nowhere not found");
}

TEST(AmqpLogin, UnknownMechanismsAreForTheSettings) {
    const Link link = outcome([](Peer& peer) {
        peer.read_protocol_header();
        peer.send(peer.start_bytes("PLAINISH EXTERNAL"));
        peer.wait_for_end();
    });
    expect_down(link, Remedy::fix_settings, "it offers \"PLAINISH EXTERNAL\"");
}

TEST(AmqpLogin, OtherProtocolsAreNamed) {
    const auto greeted_with = [](std::string_view greeting) {
        return outcome([greeting](Peer& peer) { peer.send(greeting); });
    };
    expect_down(greeted_with({"AMQP\0\1\0\0", 8}), Remedy::retry, "offers protocol header AMQP 0.1.0.0");
    expect_down(greeted_with("HTTP/1.1 400 Bad Request\r\nServer: x\r\n"), Remedy::retry,
                "the server answers in HTTP (\"HTTP/1.1 400 Bad Request\"): it is a web server or a proxy");
    expect_down(greeted_with("-ERR unknown command\r\n"), Remedy::retry,
                "the server speaks Redis' protocol on this port, whose scheme is redis://");
    expect_down(greeted_with("hello, who is there?\r\n"), Remedy::retry,
                "not an AMQP broker: it answered \"hello, who is there?\"");
    expect_down(greeted_with({"\x15\x03\x03\x00\x02\x02\x46", 7}), Remedy::retry,
                "the server speaks TLS on this port: use amqps:// in the broker's URL");
    expect_down(greeted_with({"\x01\x00\x00\x7f\xff\xff\xff\x00", 8}), Remedy::retry, "malformed frame");
    expect_down(greeted_with({"\x01\x00\x00\x00\x00\x00\x02\x00\x0a\xce", 10}), Remedy::retry, "malformed method");
}

TEST(AmqpLogin, ClosedAtOnceAndSilence) {
    expect_down(outcome([](Peer&) {}), Remedy::retry, "; if it wants TLS on this port, use amqps://");
    expect_down(outcome([](Peer& peer) { peer.wait_for_end(); }, "", 300), Remedy::retry,
                "the broker did not greet within 300 ms");
    const auto start_and_silence = [](Peer& peer) {
        peer.read_protocol_header();
        peer.send(peer.start_bytes());
        peer.wait_for_end();
    };
    expect_down(outcome(start_and_silence, "?connection_timeout=300"), Remedy::retry,
                "did not finish the login within 300 ms");
}

// Three round trips, each within the limit, all together beyond it.
TEST(AmqpLogin, ASlowWayHasTheTimeoutForEachStep) {
    const auto take_time = [] {
        const auto until = Clock::now() + milliseconds(300);
        while (Clock::now() < until) std::this_thread::yield();
    };
    FakeBroker broker([&](Peer& peer) {
        peer.read_protocol_header();
        take_time();
        peer.send(peer.start_bytes());
        peer.expect(AMQP_CONNECTION_START_OK_METHOD);
        take_time();
        peer.method(0, AMQP_CONNECTION_TUNE_METHOD, amqp_connection_tune_t{10, 131072, 60});
        peer.expect(AMQP_CONNECTION_TUNE_OK_METHOD);
        peer.expect(AMQP_CONNECTION_OPEN_METHOD);
        take_time();
        peer.method(0, AMQP_CONNECTION_OPEN_OK_METHOD, amqp_connection_open_ok_t{});
        peer.wait_for_end();
    });
    const auto begun = Clock::now();
    Driven driven(settings_for(url_of(broker.port(), "?connection_timeout=700")));
    EXPECT_TRUE(driven.until_state(LinkState::up)) << driven.link.reason;
    EXPECT_GT(Clock::now() - begun, milliseconds(700));
    driven.destroy();
}

TEST(AmqpLogin, ConnectionRefused) {
    std::uint16_t port = 0;
    {
        FakeBroker broker([](Peer&) {});
        port = broker.port();
        Driven passing(settings_for(url_of(port)));
        EXPECT_TRUE(passing.until_state(LinkState::down));
    }
    Driven driven(settings_for(url_of(port)));
    EXPECT_TRUE(driven.until_state(LinkState::down));
    EXPECT_EQ(driven.link.remedy, Remedy::retry);
    EXPECT_FALSE(driven.link.reason.empty());
}

TEST(AmqpLogin, AttemptsTakeTheHostsInTurn) {
    FakeBroker broker([](Peer& peer) {
        peer.login();
        peer.wait_for_end();
    });
    Driven driven(settings_for("amqp://127.0.0.1:1,127.0.0.1:" + std::to_string(broker.port())), 3);
    EXPECT_TRUE(driven.until_state(LinkState::up));
    driven.destroy();
}

TEST(AmqpLogin, BytesMayDribble) {
    FakeBroker broker([](Peer& peer) {
        const auto dribble = [&](std::string_view bytes) {
            for (const char byte : bytes) {
                peer.send({&byte, 1});
                std::this_thread::yield();
            }
        };
        peer.read_protocol_header();
        dribble(peer.start_bytes());
        peer.expect(AMQP_CONNECTION_START_OK_METHOD);
        dribble(peer.bytes_of(0, AMQP_CONNECTION_TUNE_METHOD, amqp_connection_tune_t{10, 131072, 60}));
        peer.expect(AMQP_CONNECTION_TUNE_OK_METHOD);
        peer.expect(AMQP_CONNECTION_OPEN_METHOD);
        dribble(peer.bytes_of(0, AMQP_CONNECTION_OPEN_OK_METHOD, amqp_connection_open_ok_t{}));
        const Published got = (peer.channel(), peer.published());
        dribble(peer.bytes_of(got.channel, AMQP_BASIC_ACK_METHOD, amqp_basic_ack_t{1, 0}));
        peer.wait_for_end();
    });
    Driven driven(settings_for(url_of(broker.port())));
    ASSERT_TRUE(driven.until_state(LinkState::up));
    const Event event = event_of(1);
    ASSERT_TRUE(driven.offer_soon(1, event, to_exchange, "x", "k"));
    EXPECT_TRUE(driven.until_settled(1));
    expect_settled(driven, 1, Verdict::delivered, Remedy::none);
    driven.destroy();
}

// What the broker holds against the connection: whoever may not be here needs other settings; all else is tried again.
TEST(AmqpClosed, TheCodeDecidesTheRemedy) {
    const auto closed_by = [](std::uint16_t code) {
        return outcome([code](Peer& peer) {
            peer.login();
            peer.close_connection(code, "WORDS of the broker");
        });
    };
    for (const std::uint16_t code : {403, 530})
        expect_down(closed_by(code), Remedy::fix_settings, std::to_string(code) + " WORDS of the broker");
    for (const std::uint16_t code : {311, 320, 402, 501, 502, 503, 504, 505, 506, 540, 541})
        expect_down(closed_by(code), Remedy::retry, std::to_string(code) + " WORDS of the broker");
}

}  // namespace
}  // namespace eventbus::broker::amqp
