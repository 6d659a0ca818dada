// What it is: the AMQP driver against a scripted broker: logins, confirms, returns, failures.
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

void expect_down(const Link& link, Remedy remedy, const std::string& part) {
    EXPECT_EQ(link.state, LinkState::down);
    EXPECT_EQ(link.remedy, remedy) << link.reason;
    EXPECT_NE(link.reason.find(part), std::string::npos) << link.reason;
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
                "not an AMQP broker: it answered \"HTTP/1.1 400 Bad Request\"");
    expect_down(greeted_with({"\x15\x03\x03\x00\x02\x02\x46", 7}), Remedy::retry, "amqps");
    expect_down(greeted_with({"\x01\x00\x00\x7f\xff\xff\xff\x00", 8}), Remedy::retry, "malformed frame");
    expect_down(greeted_with({"\x01\x00\x00\x00\x00\x00\x02\x00\x0a\xce", 10}), Remedy::retry, "malformed method");
}

TEST(AmqpLogin, ClosedAtOnceAndSilence) {
    expect_down(outcome([](Peer&) {}), Remedy::retry, "before the broker's greeting");
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
    ASSERT_TRUE(driven.offer(1, event, to_exchange, "x", "k"));
    EXPECT_TRUE(driven.until_settled(1));
    expect_settled(driven, 1, Verdict::delivered, Remedy::none);
    driven.destroy();
}

// A driver at a broker that has let it in, and events 1, 2, 3 …
class AmqpTalk : public testing::Test {
 protected:
    void start(FakeBroker::Script script, const std::string& rest = "", std::uint32_t window = 0,
               std::uint32_t confirm_timeout_s = 60) {
        broker_.emplace(std::move(script));
        BrokerSettings settings = settings_for(url_of(broker_->port(), rest));
        settings.options.window = window;
        settings.options.confirm_timeout_s = confirm_timeout_s;
        driven_.emplace(settings);
        for (int id = 0; id <= 10; ++id) events_.push_back(event_of(id));
        ASSERT_TRUE(driven_->until([&] { return driven_->link.state != LinkState::connecting; }));
        ASSERT_NE(driven_->link.state, LinkState::down) << driven_->link.reason;
    }
    bool offer(std::uint64_t ticket, std::uint32_t lane = 1, std::string_view exchange = "x") {
        return driven_->offer(ticket, events_[ticket], to_exchange, exchange, "k", lane);
    }
    void TearDown() override {
        if (driven_) driven_->destroy();
        broker_.reset();
    }
    std::optional<FakeBroker> broker_;
    std::optional<Driven> driven_;
    std::vector<Event> events_;
    std::atomic<bool> unblock_ = false;
};

TEST_F(AmqpTalk, AcksComeSingleMultipleAndOutOfOrder) {
    start([](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        for (int i = 1; i <= 6; ++i) {
            const Published got = peer.published();
            EXPECT_EQ(got.message_id, std::to_string(i));
            EXPECT_TRUE(got.mandatory);
            EXPECT_EQ(got.exchange, "x");
            EXPECT_EQ(got.routing_key, "k");
        }
        peer.ack(channel, 2);
        peer.ack(channel, 3, true);
        peer.ack(channel, 3);  // once more: must not settle anything twice
        peer.nack(channel, 5);
        peer.ack(channel, 0, true);  // all so far
        peer.wait_for_end();
    });
    for (std::uint64_t ticket = 1; ticket <= 6; ++ticket) ASSERT_TRUE(offer(ticket));
    ASSERT_TRUE(driven_->until_settled(6));
    for (const std::uint64_t ticket : {1, 2, 3, 4, 6})
        expect_settled(*driven_, ticket, Verdict::delivered, Remedy::none);
    expect_settled(*driven_, 5, Verdict::refused, Remedy::retry, "basic.nack");
    EXPECT_EQ(driven_->order, (std::vector<std::uint64_t>{2, 1, 3, 5, 4, 6}));
}

TEST_F(AmqpTalk, AReturnedMessageIsParkedWhenItsAckComes) {
    start([](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        peer.published();
        const Published second = peer.published();
        peer.give_back(second);
        peer.ack(channel, 2, true);
        peer.wait_for_end();
    });
    events_[2].payload = "a body that comes back";
    ASSERT_TRUE(offer(1));
    ASSERT_TRUE(offer(2));
    ASSERT_TRUE(driven_->until_settled(2));
    expect_settled(*driven_, 1, Verdict::delivered, Remedy::none);
    expect_settled(*driven_, 2, Verdict::refused, Remedy::park, "312 NO_ROUTE: exchange 'x', routing key 'k'");
}

TEST_F(AmqpTalk, AnEmptyBodyComesBackToo) {
    start([](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        const Published first = peer.published();
        EXPECT_EQ(first.body_frames, 0u);
        peer.give_back(first);
        peer.ack(channel, 1);
        peer.wait_for_end();
    });
    events_[1].payload = "";
    ASSERT_TRUE(offer(1));
    ASSERT_TRUE(driven_->until_settled(1));
    expect_settled(*driven_, 1, Verdict::refused, Remedy::park, "NO_ROUTE");
}

TEST_F(AmqpTalk, AMissingExchangeHitsItsLaneAlone) {
    start([](Peer& peer) {
        peer.login();
        const auto sick = peer.channel();
        peer.published();
        peer.published();
        const auto well = peer.channel();
        const Published third = peer.published();
        EXPECT_NE(sick, well);
        EXPECT_EQ(third.channel, well);
        peer.close_channel(sick, 404, "NOT_FOUND - no exchange 'gone' in vhost '/'");
        peer.ack(well, 1);
        const auto again = peer.channel();
        const Published fourth = peer.published();
        EXPECT_EQ(fourth.channel, again);
        peer.ack(again, 1);
        peer.wait_for_end();
    });
    ASSERT_TRUE(offer(1, 1, "gone"));
    ASSERT_TRUE(offer(2, 1, "gone"));
    ASSERT_TRUE(offer(3, 2, "here"));
    ASSERT_TRUE(driven_->until_settled(3));
    expect_settled(*driven_, 1, Verdict::refused, Remedy::fix_settings, "404 NOT_FOUND - no exchange 'gone'");
    expect_settled(*driven_, 2, Verdict::unknown, Remedy::retry, "404 NOT_FOUND - no exchange 'gone'");
    expect_settled(*driven_, 3, Verdict::delivered, Remedy::none);
    EXPECT_EQ(driven_->link.state, LinkState::up);
    ASSERT_TRUE(offer(4, 1, "gone"));
    ASSERT_TRUE(driven_->until_settled(4));
    expect_settled(*driven_, 4, Verdict::delivered, Remedy::none);
}

TEST_F(AmqpTalk, BlockedAndUnblocked) {
    start([this](Peer& peer) {
        peer.login();
        peer.method(0, AMQP_CONNECTION_BLOCKED_METHOD, amqp_connection_blocked_t{amqp_cstring_bytes("low on memory")});
        while (!unblock_) std::this_thread::yield();
        peer.method(0, AMQP_CONNECTION_UNBLOCKED_METHOD, amqp_connection_unblocked_t{});
        const auto channel = peer.channel();
        peer.published();
        peer.ack(channel, 1);
        peer.wait_for_end();
    });
    EXPECT_TRUE(driven_->until_state(LinkState::blocked));
    EXPECT_EQ(driven_->link.reason, "low on memory");
    EXPECT_FALSE(offer(1));
    unblock_ = true;
    EXPECT_TRUE(driven_->until_state(LinkState::up));
    EXPECT_TRUE(offer(1));
    EXPECT_TRUE(driven_->until_settled(1));
    expect_settled(*driven_, 1, Verdict::delivered, Remedy::none);
}

TEST_F(AmqpTalk, HeartbeatsAreSentAndMissed) {
    start(
        [](Peer& peer) {
            peer.login(131072, 60);
            EXPECT_EQ(peer.frame(true).type, AMQP_FRAME_HEARTBEAT);
            peer.channel();
            peer.published();
            peer.wait_for_end();  // and never says anything again
        },
        "?heartbeat=1");
    const auto start = Clock::now();
    ASSERT_TRUE(driven_->until([&] { return Clock::now() > start + milliseconds(600); }));
    EXPECT_LT(driven_->steps, 60u) << "the driver must not spin";
    ASSERT_TRUE(offer(1));
    ASSERT_TRUE(driven_->until_state(LinkState::down));
    expect_down(driven_->link, Remedy::retry, "no heartbeat for 2 s");
    expect_settled(*driven_, 1, Verdict::unknown, Remedy::retry, "no heartbeat for 2 s");
    EXPECT_EQ(driven_->wake_at(), TimePoint::max());
    EXPECT_FALSE(offer(2));
}

// RabbitMQ counts from tune-ok on.
TEST_F(AmqpTalk, HeartbeatsAreSentWhileTheVirtualHostIsOpened) {
    start(
        [](Peer& peer) {
            peer.read_protocol_header();
            peer.send(peer.start_bytes());
            peer.expect(AMQP_CONNECTION_START_OK_METHOD);
            peer.method(0, AMQP_CONNECTION_TUNE_METHOD, amqp_connection_tune_t{10, 131072, 60});
            peer.expect(AMQP_CONNECTION_TUNE_OK_METHOD);
            peer.expect(AMQP_CONNECTION_OPEN_METHOD);
            for (int i = 0; i < 5; ++i) EXPECT_EQ(peer.frame(true).type, AMQP_FRAME_HEARTBEAT);
            peer.method(0, AMQP_CONNECTION_OPEN_OK_METHOD, amqp_connection_open_ok_t{});
            peer.wait_for_end();
        },
        "?heartbeat=1");
    EXPECT_TRUE(driven_->until_state(LinkState::up)) << driven_->link.reason;
}

TEST_F(AmqpTalk, HeartbeatsKeepTheLinkUp) {
    start(
        [](Peer& peer) {
            peer.login(131072, 60);
            for (int i = 0; i < 5; ++i) {  // one for each of the driver's
                EXPECT_EQ(peer.frame(true).type, AMQP_FRAME_HEARTBEAT);
                peer.send(std::string_view("\x08\0\0\0\0\0\0\xce", 8));
            }
            peer.wait_for_end();
        },
        "?heartbeat=1");
    const auto start = Clock::now();
    EXPECT_TRUE(driven_->until([&] { return Clock::now() > start + milliseconds(3000); }));
    EXPECT_EQ(driven_->link.state, LinkState::up) << driven_->link.reason;
}

TEST_F(AmqpTalk, ACutBetweenPublishAndAckIsUnknownOnceEach) {
    start([](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        for (int i = 0; i < 3; ++i) peer.published();
        peer.ack(channel, 2);
    });
    for (std::uint64_t ticket = 1; ticket <= 3; ++ticket) ASSERT_TRUE(offer(ticket));
    ASSERT_TRUE(driven_->until_state(LinkState::down));
    ASSERT_TRUE(driven_->until_settled(3));
    expect_settled(*driven_, 1, Verdict::unknown, Remedy::retry);
    expect_settled(*driven_, 2, Verdict::delivered, Remedy::none);
    expect_settled(*driven_, 3, Verdict::unknown, Remedy::retry);
    EXPECT_EQ(driven_->link.remedy, Remedy::retry);
}

TEST_F(AmqpTalk, WhatIsNotAcknowledgedInTimeIsTriedAgainButNotWhileBlocked) {
    start(
        [this](Peer& peer) {
            peer.login();
            const auto channel = peer.channel();
            for (int i = 0; i < 3; ++i) peer.published();
            peer.ack(channel, 2);
            peer.method(0, AMQP_CONNECTION_BLOCKED_METHOD, amqp_connection_blocked_t{amqp_cstring_bytes("disk")});
            while (!unblock_) std::this_thread::yield();
            peer.method(0, AMQP_CONNECTION_UNBLOCKED_METHOD, amqp_connection_unblocked_t{});
            peer.published();
            peer.ack(channel, 4, true);
            peer.wait_for_end();
        },
        "", 0, 1);
    for (std::uint64_t ticket = 1; ticket <= 3; ++ticket) ASSERT_TRUE(offer(ticket));
    ASSERT_TRUE(driven_->until_state(LinkState::blocked));
    const auto blocked_since = Clock::now();
    ASSERT_TRUE(driven_->until([&] { return Clock::now() > blocked_since + milliseconds(1500); }));
    EXPECT_EQ(driven_->settlements.size(), 1u);
    unblock_ = true;
    ASSERT_TRUE(driven_->until_settled(3));
    expect_settled(*driven_, 1, Verdict::refused, Remedy::retry, "no acknowledgement within 1 s");
    expect_settled(*driven_, 2, Verdict::delivered, Remedy::none);
    expect_settled(*driven_, 3, Verdict::refused, Remedy::retry, "no acknowledgement within 1 s");
    EXPECT_EQ(driven_->link.state, LinkState::up);
    ASSERT_TRUE(offer(4));
    ASSERT_TRUE(driven_->until_settled(4));
    expect_settled(*driven_, 4, Verdict::delivered, Remedy::none);
    EXPECT_LT(driven_->steps, 400u) << "the driver must not spin";
}

TEST_F(AmqpTalk, AForcedCloseIsTriedAgain) {
    start([](Peer& peer) {
        peer.login();
        peer.channel();
        peer.published();
        peer.close_connection(320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'");
    });
    ASSERT_TRUE(offer(1));
    ASSERT_TRUE(driven_->until_state(LinkState::down));
    expect_down(driven_->link, Remedy::retry, "320 CONNECTION_FORCED");
    expect_settled(*driven_, 1, Verdict::unknown, Remedy::retry, "320 CONNECTION_FORCED");
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

TEST_F(AmqpTalk, AConfirmOfNothingBreaksTheLink) {
    start([](Peer& peer) {
        peer.login();
        Published got = (peer.channel(), peer.published());
        peer.ack(got.channel, 2);
        peer.wait_for_end();
    });
    ASSERT_TRUE(offer(1));
    ASSERT_TRUE(driven_->until_state(LinkState::down));
    expect_down(driven_->link, Remedy::retry, "did not send");
    expect_settled(*driven_, 1, Verdict::unknown, Remedy::retry);
}

// To take its ack for a delivery would lose an event.
TEST_F(AmqpTalk, AReturnThatFitsNoTicketBreaksTheLink) {
    start([](Peer& peer) {
        peer.login();
        peer.channel();
        const Published got = peer.published();
        peer.give_back(got);
        peer.give_back(got);
        peer.wait_for_end();
    });
    ASSERT_TRUE(offer(1));
    ASSERT_TRUE(driven_->until_state(LinkState::down));
    expect_down(driven_->link, Remedy::retry, "returned a message that we did not send");
    expect_settled(*driven_, 1, Verdict::unknown, Remedy::retry);
}

TEST_F(AmqpTalk, BodiesAreSplitByFrameMax) {
    const std::string body(10000, 'b');
    start([&](Peer& peer) {
        peer.login(4096);
        const auto channel = peer.channel();
        const Published got = peer.published();
        EXPECT_EQ(got.body, body);
        EXPECT_EQ(got.body_frames, 3u);  // of 4088 bytes at most
        peer.ack(channel, 1);
        const Published small = peer.published();
        EXPECT_EQ(small.message_id, "3");
        peer.ack(channel, 2);
        peer.wait_for_end();
    });
    events_[1].payload = body;
    const std::string wide = R"({"wide":")" + std::string(5000, 'h') + R"("})";
    events_[2].headers = wide;
    ASSERT_TRUE(offer(1));
    ASSERT_TRUE(offer(2));
    ASSERT_TRUE(offer(3));
    ASSERT_TRUE(driven_->until_settled(3));
    expect_settled(*driven_, 1, Verdict::delivered, Remedy::none);
    expect_settled(*driven_, 2, Verdict::refused, Remedy::park, "at most 4096 bytes");
    expect_settled(*driven_, 3, Verdict::delivered, Remedy::none);
}

TEST_F(AmqpTalk, WhatAmqpCannotSayIsParkedAndTheLinkStays) {
    start([](Peer& peer) {
        peer.login();
        peer.wait_for_end();
    });
    const std::string long_text(256, 'n');
    EXPECT_TRUE(driven_->offer(1, events_[1], to_exchange, long_text, "k"));
    EXPECT_TRUE(driven_->offer(2, events_[2], to_exchange, "x", long_text));
    EXPECT_TRUE(driven_->offer(3, events_[3], to_queue, long_text));
    events_[4].content_type = long_text;
    EXPECT_TRUE(driven_->offer(4, events_[4], to_queue, "q"));
    ASSERT_TRUE(driven_->until_settled(4));
    expect_settled(*driven_, 1, Verdict::refused, Remedy::park, "the exchange's name is 256 bytes long");
    expect_settled(*driven_, 2, Verdict::refused, Remedy::park, "the routing key is 256 bytes long");
    expect_settled(*driven_, 3, Verdict::refused, Remedy::park, "the queue's name is 256 bytes long");
    expect_settled(*driven_, 4, Verdict::refused, Remedy::park, "the content type is 256 bytes long");
    EXPECT_EQ(driven_->link.state, LinkState::up);
}

TEST_F(AmqpTalk, TheWindowAndTheBytesAreBounded) {
    start(
        [](Peer& peer) {
            peer.login();
            const auto channel = peer.channel();
            for (int i = 0; i < 2; ++i) peer.published();
            peer.ack(channel, 2, true);
            peer.published();
            peer.ack(channel, 3);
            peer.published();
            peer.ack(channel, 4);
            peer.wait_for_end();
        },
        "", 2);
    ASSERT_TRUE(offer(1));
    ASSERT_TRUE(offer(2));
    EXPECT_FALSE(offer(3)) << "two tickets are open";
    ASSERT_TRUE(driven_->until_settled(2));
    const std::string huge(3 << 20, 'h');
    events_[3].payload = events_[4].payload = huge;
    ASSERT_TRUE(offer(3)) << "a huge one goes when nothing else is open";
    EXPECT_FALSE(offer(4)) << "three megabytes are open";
    ASSERT_TRUE(driven_->until_settled(3));
    ASSERT_TRUE(offer(4));
    ASSERT_TRUE(driven_->until_settled(4));
}

TEST_F(AmqpTalk, ChannelsOfIdleLanesAreFreedWhenThereAreNoMore) {
    start([](Peer& peer) {
        peer.login(131072, 60, 1);
        const auto first = peer.channel();
        peer.published();
        peer.ack(first, 1);
        peer.expect(AMQP_CHANNEL_CLOSE_METHOD);
        peer.method(first, AMQP_CHANNEL_CLOSE_OK_METHOD, amqp_channel_close_ok_t{});
        EXPECT_EQ(peer.channel(), first);
        const Published second = peer.published();
        EXPECT_EQ(second.message_id, "2");
        peer.ack(first, 1);
        peer.wait_for_end();
    });
    ASSERT_TRUE(offer(1, 1));
    EXPECT_FALSE(offer(2, 2)) << "the only channel is busy";
    ASSERT_TRUE(driven_->until_settled(1));
    ASSERT_TRUE(driven_->until([&] { return offer(2, 2); }));
    ASSERT_TRUE(driven_->until_settled(2));
    expect_settled(*driven_, 2, Verdict::delivered, Remedy::none);
}

TEST_F(AmqpTalk, AChannelMayAskToPause) {
    start([](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        peer.published();
        peer.method(channel, AMQP_CHANNEL_FLOW_METHOD, amqp_channel_flow_t{0});
        peer.expect(AMQP_CHANNEL_FLOW_OK_METHOD);
        peer.ack(channel, 1);
        peer.method(channel, AMQP_CHANNEL_FLOW_METHOD, amqp_channel_flow_t{1});
        peer.expect(AMQP_CHANNEL_FLOW_OK_METHOD);
        peer.published();
        peer.ack(channel, 2);
        peer.wait_for_end();
    });
    ASSERT_TRUE(offer(1));
    ASSERT_TRUE(driven_->until_settled(1));
    ASSERT_TRUE(driven_->until([&] { return offer(2); }));
    ASSERT_TRUE(driven_->until_settled(2));
    expect_settled(*driven_, 2, Verdict::delivered, Remedy::none);
}

}  // namespace
}  // namespace eventbus::broker::amqp
