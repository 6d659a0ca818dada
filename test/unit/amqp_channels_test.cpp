// What it is: a broker's limits, its unknown answers, and answers without end, against a scripted broker.
// Who calls it: make -C test/unit amqp.
// Never: needs a real broker.
#include <set>

#include "amqp_conversation.hpp"

namespace eventbus::broker::amqp {
namespace {

const std::string too_many =
    "NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum allowed user limit of (2)";

class AmqpLimits : public AmqpConversation {
 protected:
    bool offer(std::uint64_t ticket, std::uint32_t lane) {
        return driven_->offer(ticket, events_[ticket], to_exchange, "x", "k", lane);
    }
    // Offers ticket N on lane N in turn until all are taken and settled, or the link is down.
    void offer_all(std::uint64_t first, std::uint64_t last) {
        std::set<std::uint64_t> left;
        for (std::uint64_t ticket = first; ticket <= last; ++ticket) left.insert(ticket);
        ASSERT_TRUE(driven_->until([&] {
            std::erase_if(left,
                          [&](std::uint64_t ticket) { return offer(ticket, static_cast<std::uint32_t>(ticket)); });
            return driven_->link.state == LinkState::down ||
                   (left.empty() && driven_->settlements.size() > last - first);
        }));
    }
};

// Answers each message until the driver goes; says how many channels it has seen.
void serve(Peer& peer, std::size_t most_channels) {
    std::set<std::uint16_t> channels;
    std::map<std::uint16_t, std::uint64_t> tags;
    try {
        while (true) {
            const Frame frame = peer.frame();
            const auto channel = frame.channel;
            const auto method = peer.method_of(frame);
            if (method == AMQP_CHANNEL_OPEN_METHOD) {
                channels.insert(channel);
                EXPECT_LE(channels.size(), most_channels);
                peer.method(channel, AMQP_CHANNEL_OPEN_OK_METHOD, amqp_channel_open_ok_t{});
            } else if (method == AMQP_BASIC_PUBLISH_METHOD) {
                peer.ack(channel, ++tags[channel]);
            }
        }
    } catch (const std::runtime_error&) {
    }
}

TEST_F(AmqpLimits, LanesTakeTurnsOnTheChannelsThatFit) {
    start({[](Peer& peer) {
               peer.login();
               for (int i = 1; i <= 2; ++i) {
                   std::uint16_t number = 0;
                   peer.expect(AMQP_CHANNEL_OPEN_METHOD, &number);
                   peer.expect(AMQP_CONFIRM_SELECT_METHOD);
                   peer.method(number, AMQP_CHANNEL_OPEN_OK_METHOD, amqp_channel_open_ok_t{});
               }
               peer.expect(AMQP_CHANNEL_OPEN_METHOD);
               for (int i = 0; i < 2; ++i) {  // the rest of what was asked for, and no message
                   peer.expect(AMQP_CONFIRM_SELECT_METHOD);
                   peer.expect(AMQP_CHANNEL_OPEN_METHOD);
               }
               peer.expect(AMQP_CONFIRM_SELECT_METHOD);
               peer.close_connection(530, too_many);
           },
           [](Peer& peer) {
               peer.login();
               serve(peer, 2);
           }});
    offer_all(1, 5);
    ASSERT_EQ(driven_->link.state, LinkState::down);
    expect_down(driven_->link, Remedy::retry, "530 " + too_many + "; routes take turns on the 2 channels");
    EXPECT_TRUE(driven_->link.goodbye) << "no message is to be suspected";
    EXPECT_TRUE(driven_->settlements.empty()) << "nothing was sent before all channels were there";
    connect();
    offer_all(1, 30);
    EXPECT_EQ(driven_->link.state, LinkState::up) << driven_->link.reason;
    for (std::uint64_t ticket = 1; ticket <= 30; ++ticket)
        expect_settled(*driven_, ticket, Verdict::delivered, Remedy::none);
}

TEST_F(AmqpLimits, WhereNoChannelFitsAllRoutesAreHeld) {
    start({[](Peer& peer) {
        peer.login();
        peer.expect(AMQP_CHANNEL_OPEN_METHOD);
        peer.expect(AMQP_CONFIRM_SELECT_METHOD);
        peer.close_connection(530, too_many);
    }});
    offer_all(1, 1);
    expect_down(driven_->link, Remedy::fix_settings, "530 " + too_many);
}

TEST_F(AmqpLimits, TheLimitAgreedAtLoginIsKept) {
    start({[](Peer& peer) {
        peer.login(131072, 60, 2);
        serve(peer, 2);
    }});
    offer_all(1, 30);
    EXPECT_EQ(driven_->link.state, LinkState::up) << driven_->link.reason;
    for (std::uint64_t ticket = 1; ticket <= 30; ++ticket)
        expect_settled(*driven_, ticket, Verdict::delivered, Remedy::none);
}

// Busy lanes hand their channel on as well.
TEST_F(AmqpLimits, ALaneThatIsNeverIdleKeepsNobodyWaiting) {
    start({[](Peer& peer) {
        peer.login(131072, 60, 1);
        serve(peer, 1);
    }});
    std::uint64_t ticket = 1000;
    std::map<std::uint32_t, int> taken;
    ASSERT_TRUE(driven_->until([&] {
        for (std::uint32_t lane = 1; lane <= 3; ++lane)
            for (int i = 0; i < 10; ++i)
                if (driven_->offer(ticket, events_[1], to_exchange, "x", "k", lane)) {
                    ++ticket;
                    ++taken[lane];
                }
        return taken[1] > 100 && taken[2] > 100 && taken[3] > 100;
    }));
    ASSERT_TRUE(driven_->until([&] { return driven_->settlements.size() == ticket - 1000; }));
    for (std::uint64_t each = 1000; each < ticket; ++each)
        ASSERT_EQ(driven_->settlements.at(each).verdict, Verdict::delivered);
}

TEST_F(AmqpLimits, AChannelThatIsNeverOpenedIsNotWaitedForForEver) {
    start({[](Peer& peer) {
              peer.login();
              peer.expect(AMQP_CHANNEL_OPEN_METHOD);
              peer.wait_for_end();
          }},
          [](BrokerSettings& settings) { settings.options.connect_timeout_ms = 500; });
    EXPECT_FALSE(offer(0, 1));
    ASSERT_TRUE(driven_->until_state(LinkState::down));
    expect_down(driven_->link, Remedy::retry, "did not open a channel within 500 ms");
}

TEST_F(AmqpLimits, AForbiddenKeyCostsItsEventAlone) {
    start({[](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        for (int i = 1; i <= 3; ++i) peer.published();
        peer.ack(channel, 1);
        peer.close_channel(channel, 403,
                           "ACCESS_REFUSED - access to topic 'bad' in exchange 'x' in vhost '/' refused for user 'u'");
        peer.channel();
        EXPECT_EQ(peer.published().message_id, "3");
        peer.ack(channel, 1);
        peer.wait_for_end();
    }});
    ASSERT_TRUE(driven_->until([&] { return offer(1, 1); }));
    ASSERT_TRUE(driven_->offer(2, events_[2], to_exchange, "x", "bad", 1));
    ASSERT_TRUE(offer(3, 1));
    ASSERT_TRUE(driven_->until_settled(3));
    expect_settled(*driven_, 1, Verdict::delivered, Remedy::none);
    expect_settled(*driven_, 2, Verdict::refused, Remedy::forbidden, "403 ACCESS_REFUSED - access to topic 'bad'");
    expect_settled(*driven_, 3, Verdict::unknown, Remedy::retry);
    driven_->settlements.clear();
    driven_->settled.clear();
    ASSERT_TRUE(driven_->until([&] { return offer(3, 1); }));
    ASSERT_TRUE(driven_->until_settled(1));
    expect_settled(*driven_, 3, Verdict::delivered, Remedy::none);
    EXPECT_EQ(driven_->link.state, LinkState::up);
}

using std::chrono::milliseconds;

const std::string bad_is_forbidden =
    "ACCESS_REFUSED - access to topic 'bad' in exchange 'x' in vhost '/' refused for user 'u'";

// Its neighbours, under way on the other channel, hear nothing of it; once it is taken, it goes with them again.
TEST_F(AmqpLimits, WhatWasRefusedIsTriedAsideAndAlone) {
    std::atomic<int> may_go_on = 0;
    start({[&](Peer& peer) {
        peer.login();
        auto channel = peer.channel();
        peer.published();
        peer.close_channel(channel, 403, bad_is_forbidden);
        channel = peer.channel();
        EXPECT_EQ(peer.published().routing_key, "k");
        for (const bool is_allowed : {false, true}) {
            const auto aside = peer.channel();
            EXPECT_NE(aside, channel);
            const Published got = peer.published();
            EXPECT_EQ(got.channel, aside);
            EXPECT_EQ(got.routing_key, "bad");
            while (may_go_on == 0) std::this_thread::yield();
            --may_go_on;
            if (is_allowed)
                peer.ack(aside, 1);
            else
                peer.close_channel(aside, 403, bad_is_forbidden);
            if (is_allowed) peer.expect(AMQP_CHANNEL_CLOSE_METHOD);
        }
        EXPECT_EQ(peer.published().channel, channel);
        peer.ack(channel, 2, true);
        peer.wait_for_end();
    }});
    events_[3].key = "of one key";
    events_[4].key = "of one key";
    const auto offer_bad = [&](std::uint64_t ticket) {
        return driven_->offer(ticket, events_[ticket], to_exchange, "x", "bad", 1);
    };
    ASSERT_TRUE(driven_->until([&] { return offer_bad(1); }));
    ASSERT_TRUE(driven_->until_settled(1));
    ASSERT_TRUE(driven_->until([&] { return offer(2, 1); }));
    ASSERT_TRUE(driven_->until([&] { return offer_bad(3); }));
    EXPECT_FALSE(offer_bad(5)) << "one at a time";
    EXPECT_FALSE(offer(4, 1)) << "not beside what is under way of its key";
    ++may_go_on;
    ASSERT_TRUE(driven_->until_settled(2));
    expect_settled(*driven_, 3, Verdict::refused, Remedy::forbidden);
    ASSERT_TRUE(driven_->until([&] { return offer_bad(5); }));
    ++may_go_on;
    ASSERT_TRUE(driven_->until_settled(3));
    expect_settled(*driven_, 5, Verdict::delivered, Remedy::none);
    ASSERT_TRUE(offer_bad(6)) << "with the others, once one was taken";
    ASSERT_TRUE(driven_->until_settled(5));
    for (const std::uint64_t ticket : {2, 6}) expect_settled(*driven_, ticket, Verdict::delivered, Remedy::none);
}

// RabbitMQ counts late: the place of a channel that it has just closed is not free yet.
TEST_F(AmqpLimits, AChannelThatWasClosedIsNotReplacedAtOnceWhereTheyAreFew) {
    const auto forbid_one = [](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        EXPECT_EQ(peer.published().routing_key, "bad");
        peer.close_channel(channel, 403, bad_is_forbidden);
        return Clock::now();
    };
    start({[&](Peer& peer) {
               forbid_one(peer);
               peer.expect(AMQP_CHANNEL_OPEN_METHOD);
               peer.expect(AMQP_CONFIRM_SELECT_METHOD);
               peer.close_connection(530, too_many);
           },
           [&](Peer& peer) {
               const auto closed = forbid_one(peer);
               const auto channel = peer.channel();
               EXPECT_GE(Clock::now() - closed, milliseconds(100));
               peer.published();
               peer.ack(channel, 1);
               peer.wait_for_end();
           }});
    for (int connection = 1; connection <= 2; ++connection) {
        ASSERT_TRUE(driven_->until([&] { return driven_->offer(1, events_[1], to_exchange, "x", "bad", 1); }));
        ASSERT_TRUE(driven_->until_settled(1));
        driven_->settlements.clear();
        if (connection == 2) break;
        ASSERT_TRUE(driven_->until([&] {
            offer(2, 1);
            return driven_->link.state == LinkState::down;
        }));
        expect_down(driven_->link, Remedy::retry, "routes take turns on the 1 channel that the broker lets us have");
        connect();
    }
    ASSERT_TRUE(driven_->until([&] { return offer(2, 1); }));
    ASSERT_TRUE(driven_->until_settled(1));
    expect_settled(*driven_, 2, Verdict::delivered, Remedy::none);
}

// Longer than we thought: the limit that is known stays, and nobody is held.
TEST_F(AmqpLimits, AChannelThatIsCountedForLongHoldsNobody) {
    const auto close_one = [](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        peer.published();
        peer.close_channel(channel, 403, bad_is_forbidden);
        peer.expect(AMQP_CHANNEL_OPEN_METHOD);
        peer.expect(AMQP_CONFIRM_SELECT_METHOD);
        peer.close_connection(530, too_many);
    };
    start({close_one, close_one});
    for (int connection = 1; connection <= 2; ++connection) {
        ASSERT_TRUE(driven_->until([&] { return driven_->offer(1, events_[1], to_exchange, "x", "bad", 1); }));
        ASSERT_TRUE(driven_->until_settled(1));
        driven_->settlements.clear();
        ASSERT_TRUE(driven_->until([&] {
            offer(2, 1);
            return driven_->link.state == LinkState::down;
        }));
        expect_down(driven_->link, Remedy::retry, "routes take turns on the 1 channel that the broker lets us have");
        if (connection == 1) connect();
    }
}

TEST_F(AmqpLimits, WhatEndsTheConnectionIsToldWhole) {
    start({[](Peer& peer) {
        peer.login();
        peer.channel();
        peer.published();
        peer.method(0, AMQP_CONNECTION_CLOSE_METHOD,
                    amqp_connection_close_t{599, amqp_cstring_bytes("NEVER_SEEN - something new"), 60, 40});
    }});
    ASSERT_TRUE(driven_->until([&] { return offer(1, 1); }));
    ASSERT_TRUE(driven_->until_state(LinkState::down));
    EXPECT_EQ(driven_->link.reason, "599 NEVER_SEEN - something new (AMQP_BASIC_PUBLISH_METHOD)");
    EXPECT_EQ(driven_->link.remedy, Remedy::retry) << "what is not known holds nobody";
    EXPECT_FALSE(driven_->link.goodbye) << "it may be the message's fault";
    expect_settled(*driven_, 1, Verdict::unknown, Remedy::retry, "599 NEVER_SEEN");
}

TEST_F(AmqpLimits, WhatWeDoNotKnowIsPassedOver) {
    start({[](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        const Published got = peer.published();
        const std::string unknown("\x00\x55\x00\x0b rest", 9);
        for (const std::uint16_t each : {std::uint16_t{0}, channel}) peer.raw(AMQP_FRAME_METHOD, each, unknown);
        peer.raw(AMQP_FRAME_HEADER, channel, got.header_payload);
        peer.raw(AMQP_FRAME_BODY, channel, got.body);
        peer.raw(4, channel, "a type of frame that there is none of");
        peer.raw(AMQP_FRAME_METHOD, 77, unknown);
        peer.ack(channel, 1);
        peer.wait_for_end();
    }});
    ASSERT_TRUE(driven_->until([&] { return offer(1, 1); }));
    ASSERT_TRUE(driven_->until_settled(1));
    expect_settled(*driven_, 1, Verdict::delivered, Remedy::none);
    EXPECT_EQ(driven_->link.state, LinkState::up) << driven_->link.reason;
}

TEST_F(AmqpLimits, AReturnWithoutEndIsOfItsLaneAlone) {
    start({[](Peer& peer) {
        peer.login();
        const auto sick = peer.channel();
        const Published got = peer.published();
        const auto well = peer.channel();
        peer.published();
        amqp_basic_return_t returned{};
        returned.reply_code = 312;
        returned.exchange = to_bytes(got.exchange);
        returned.routing_key = to_bytes(got.routing_key);
        peer.method(sick, AMQP_BASIC_RETURN_METHOD, returned);
        std::string header = got.header_payload;
        header.replace(4, 8, std::string("\x7f\xff\xff\xff\xff\xff\xff\xff", 8));
        peer.raw(AMQP_FRAME_HEADER, sick, header);
        for (int i = 0; i < 20; ++i) peer.raw(AMQP_FRAME_BODY, sick, std::string(100'000, 'b'));
        peer.ack(well, 1);
        peer.wait_for_end();
    }});
    ASSERT_TRUE(driven_->until([&] { return offer(1, 1); }));
    ASSERT_TRUE(driven_->until([&] { return offer(2, 2); }));
    ASSERT_TRUE(driven_->until_settled(1));
    expect_settled(*driven_, 2, Verdict::delivered, Remedy::none);
    EXPECT_EQ(driven_->link.state, LinkState::up) << driven_->link.reason;
}

TEST_F(AmqpLimits, AnAnswerCutInTheMiddleIsUnknown) {
    start({[](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        peer.published();
        const std::string ack = peer.bytes_of(channel, AMQP_BASIC_ACK_METHOD, amqp_basic_ack_t{1, 0});
        peer.send(std::string_view(ack).substr(0, ack.size() - 3));
    }});
    ASSERT_TRUE(driven_->until([&] { return offer(1, 1); }));
    ASSERT_TRUE(driven_->until_state(LinkState::down));
    expect_settled(*driven_, 1, Verdict::unknown, Remedy::retry);
    expect_down(driven_->link, Remedy::retry, "the server closed the connection");
}

}  // namespace
}  // namespace eventbus::broker::amqp
