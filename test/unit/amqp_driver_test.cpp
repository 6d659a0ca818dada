// What it is: the AMQP driver against a scripted broker: confirms, returns, failures.
// Who calls it: make -C test/unit amqp.
// Never: needs a real broker.
#include "amqp_conversation.hpp"

namespace eventbus::broker::amqp {
namespace {

using std::chrono::milliseconds;

class AmqpTalk : public AmqpConversation {
 protected:
    void start(FakeBroker::Script script, const std::string& rest = "", std::uint32_t window = 0,
               std::uint32_t confirm_timeout_s = 60) {
        const auto settle = [&](BrokerSettings& settings) {
            settings.options.window = window;
            settings.own = std::make_shared<AmqpOptions>(AmqpOptions{confirm_timeout_s});
        };
        AmqpConversation::start({std::move(script)}, settle, rest);
    }
    bool offer(std::uint64_t ticket, std::uint32_t lane = 1, std::string_view exchange = "x",
               std::string_view routing_key = "k") {
        return driven_->offer(ticket, events_[ticket], to_exchange, exchange, routing_key, lane);
    }
    // The first one of a lane waits for its channel.
    bool offer_soon(std::uint64_t ticket, std::uint32_t lane = 1, std::string_view exchange = "x",
                    std::string_view routing_key = "k") {
        return driven_->until([&] { return offer(ticket, lane, exchange, routing_key); });
    }
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
    for (std::uint64_t ticket = 1; ticket <= 6; ++ticket) ASSERT_TRUE(offer_soon(ticket));
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
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(offer_soon(2));
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
    ASSERT_TRUE(offer_soon(1));
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
    ASSERT_TRUE(offer_soon(1, 1, "gone"));
    ASSERT_TRUE(offer_soon(2, 1, "gone"));
    ASSERT_TRUE(offer_soon(3, 2, "here"));
    ASSERT_TRUE(driven_->until_settled(3));
    expect_settled(*driven_, 1, Verdict::refused, Remedy::fix_settings, "404 NOT_FOUND - no exchange 'gone'");
    expect_settled(*driven_, 2, Verdict::unknown, Remedy::retry, "404 NOT_FOUND - no exchange 'gone'");
    expect_settled(*driven_, 3, Verdict::delivered, Remedy::none);
    EXPECT_EQ(driven_->link.state, LinkState::up);
    ASSERT_TRUE(offer_soon(4, 1, "gone"));
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
    EXPECT_TRUE(offer_soon(1));
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
    ASSERT_TRUE(offer_soon(1));
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
    for (std::uint64_t ticket = 1; ticket <= 3; ++ticket) ASSERT_TRUE(offer_soon(ticket));
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
    for (std::uint64_t ticket = 1; ticket <= 3; ++ticket) ASSERT_TRUE(offer_soon(ticket));
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
    ASSERT_TRUE(offer_soon(4));
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
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(driven_->until_state(LinkState::down));
    expect_down(driven_->link, Remedy::retry, "320 CONNECTION_FORCED");
    expect_settled(*driven_, 1, Verdict::unknown, Remedy::retry, "320 CONNECTION_FORCED");
}

TEST_F(AmqpTalk, AConfirmOfNothingCostsItsLaneAlone) {
    start([](Peer& peer) {
        peer.login();
        const auto sick = peer.channel();
        peer.published();
        const auto well = peer.channel();
        peer.published();
        peer.ack(sick, 2);
        peer.expect(AMQP_CHANNEL_CLOSE_METHOD);
        peer.ack(well, 1);
        peer.method(sick, AMQP_CHANNEL_CLOSE_OK_METHOD, amqp_channel_close_ok_t{});
        peer.published();
        peer.ack(well, 2);
        EXPECT_EQ(peer.channel(), sick);
        peer.published();
        peer.ack(sick, 1);
        peer.wait_for_end();
    });
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(offer_soon(2, 2));
    ASSERT_TRUE(driven_->until_settled(2));
    expect_settled(*driven_, 1, Verdict::refused, Remedy::unclear, "did not send");
    expect_settled(*driven_, 2, Verdict::delivered, Remedy::none);
    ASSERT_TRUE(offer_soon(3, 2));
    ASSERT_TRUE(driven_->until_settled(3));
    ASSERT_TRUE(offer_soon(4));
    ASSERT_TRUE(driven_->until_settled(4));
    expect_settled(*driven_, 4, Verdict::delivered, Remedy::none);
}

// To take its ack for a delivery would lose an event; so nobody's ack is taken on that channel any more.
TEST_F(AmqpTalk, AReturnThatFitsNoTicketCostsItsLaneAlone) {
    start([](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        Published got = peer.published();
        peer.published();
        got.routing_key = "another";
        got.header_payload = peer.header_without_id(got.body.size());
        peer.give_back(got);
        peer.ack(channel, 2, true);
        peer.expect(AMQP_CHANNEL_CLOSE_METHOD);
        peer.method(channel, AMQP_CHANNEL_CLOSE_OK_METHOD, amqp_channel_close_ok_t{});
        const auto again = peer.channel();
        got = peer.published();
        got.routing_key = "another";
        got.header_payload = peer.header_without_id(got.body.size());
        peer.give_back(got);
        peer.ack(again, 1);
        peer.published();
        peer.ack(again, 2);
        peer.wait_for_end();
    });
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(offer_soon(2));
    ASSERT_TRUE(driven_->until_settled(2));
    expect_settled(*driven_, 1, Verdict::unknown, Remedy::retry, "did not send");
    expect_settled(*driven_, 2, Verdict::unknown, Remedy::retry, "did not send");
    ASSERT_TRUE(offer_soon(3));
    EXPECT_FALSE(offer(4)) << "one at a time";
    ASSERT_TRUE(driven_->until_settled(3));
    expect_settled(*driven_, 3, Verdict::refused, Remedy::park, "NO_ROUTE");
    ASSERT_TRUE(offer_soon(4));
    ASSERT_TRUE(driven_->until_settled(4));
    expect_settled(*driven_, 4, Verdict::delivered, Remedy::none);
    EXPECT_EQ(driven_->link.state, LinkState::up);
}

TEST_F(AmqpTalk, AReturnedEventFromTheWalIsParkedAndNothingElseHappens) {
    start([](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        const Published got = peer.published();
        EXPECT_EQ(got.message_id, "0/16B3748-3");
        peer.give_back(got);
        peer.ack(channel, 1);
        peer.published();
        peer.ack(channel, 2);
        peer.wait_for_end();
    });
    events_[1].id = {0x16B3748, 3};
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(offer_soon(2));
    ASSERT_TRUE(driven_->until_settled(2));
    expect_settled(*driven_, 1, Verdict::refused, Remedy::park, "312 NO_ROUTE");
    expect_settled(*driven_, 2, Verdict::delivered, Remedy::none);
    EXPECT_EQ(driven_->link.state, LinkState::up);
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
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(offer_soon(2));
    ASSERT_TRUE(offer_soon(3));
    ASSERT_TRUE(driven_->until_settled(3));
    expect_settled(*driven_, 1, Verdict::delivered, Remedy::none);
    expect_settled(*driven_, 2, Verdict::refused, Remedy::park, "at most 4096 bytes");
    expect_settled(*driven_, 3, Verdict::delivered, Remedy::none);
}

TEST_F(AmqpTalk, WhatAmqpCannotSayIsParkedAndTheLinkStays) {
    start([](Peer& peer) {
        peer.login();
        peer.channel();
        peer.wait_for_end();
    });
    const std::string long_text(256, 'n');
    EXPECT_TRUE(driven_->until([&] { return driven_->offer(1, events_[1], to_exchange, long_text, "k"); }));
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
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(offer_soon(2));
    EXPECT_FALSE(offer(3)) << "two tickets are open";
    ASSERT_TRUE(driven_->until_settled(2));
    const std::string huge(3 << 20, 'h');
    events_[3].payload = events_[4].payload = huge;
    ASSERT_TRUE(offer_soon(3)) << "a huge one goes when nothing else is open";
    EXPECT_FALSE(offer(4)) << "three megabytes are open";
    ASSERT_TRUE(driven_->until_settled(3));
    ASSERT_TRUE(offer_soon(4));
    ASSERT_TRUE(driven_->until_settled(4));
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
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(driven_->until_settled(1));
    ASSERT_TRUE(driven_->until([&] { return offer(2); }));
    ASSERT_TRUE(driven_->until_settled(2));
    expect_settled(*driven_, 2, Verdict::delivered, Remedy::none);
}

}  // namespace
}  // namespace eventbus::broker::amqp
