// What it is: the AMQP driver against a broker that means harm: what it holds, what it is made to say, what it tells.
// Who calls it: make -C test/unit amqp.
// Never: needs a real broker.
#include "amqp_conversation.hpp"
#include "broker/stream/stream.hpp"

namespace eventbus::broker::amqp {
namespace {

class AmqpHarm : public AmqpConversation {
 protected:
    bool offer_soon(std::uint64_t ticket) {
        return driven_->offer_soon(ticket, events_[ticket], to_exchange, "x", "k");
    }
};

std::string long_number(std::size_t value) {
    std::string out;
    for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
    return out;
}

// An array in an array in an array ...
std::string nested(std::size_t depth) {
    std::string table(
        "\x01"
        "aA",
        3);
    for (std::size_t left = depth; left > 0; --left) table += long_number(5 * (left - 1)) + (left > 1 ? "A" : "");
    return long_number(table.size()) + table;
}

}  // namespace

TEST_F(AmqpHarm, TablesNestedDeeperThanAnyStackAreNotFollowed) {
    start({[](Peer& peer) {
        peer.read_protocol_header();
        const std::string tables = nested(26'000);
        peer.raw(AMQP_FRAME_METHOD, 0,
                 std::string("\0\x0A\0\x0A\0\x09", 6) + tables + long_number(5) + "PLAIN" + long_number(5) + "en_US");
        peer.expect(AMQP_CONNECTION_START_OK_METHOD);
        peer.method(0, AMQP_CONNECTION_TUNE_METHOD, amqp_connection_tune_t{10, 131072, 60});
        peer.expect(AMQP_CONNECTION_TUNE_OK_METHOD);
        peer.expect(AMQP_CONNECTION_OPEN_METHOD);
        peer.method(0, AMQP_CONNECTION_OPEN_OK_METHOD, amqp_connection_open_ok_t{});
        const auto channel = peer.channel();
        const Published got = peer.published();
        // And in what comes back: the flags say that there are headers, and an id behind them.
        amqp_basic_return_t returned{};
        returned.reply_code = 312;
        returned.reply_text = amqp_cstring_bytes("NO_ROUTE");
        returned.exchange = to_bytes(got.exchange);
        returned.routing_key = to_bytes(got.routing_key);
        peer.method(channel, AMQP_BASIC_RETURN_METHOD, returned);
        const std::string body_size("\0\0\0\0\0\0\0\0", 8);
        peer.raw(AMQP_FRAME_HEADER, channel,
                 std::string("\0\x3C\0\0", 4) + body_size + std::string("\x20\x80", 2) + tables + "\x01" + "1");
        peer.ack(channel, 1);
        peer.wait_for_end();
    }});
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(driven_->until_settled(1));
    expect_settled(*driven_, 1, Verdict::refused, Remedy::park, "NO_ROUTE");
    EXPECT_EQ(driven_->link.state, LinkState::up);
}

TEST_F(AmqpHarm, AReturnWithoutAnIdSaysNothingOfTheFrameBeforeIt) {
    start({[](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        const Published first = peer.published();
        Published second = peer.published();
        peer.raw(AMQP_FRAME_HEADER, channel, first.header_payload);  // the content of no return
        peer.raw(AMQP_FRAME_BODY, channel, first.body);
        second.exchange = "another";
        second.header_payload = peer.header_without_id(second.body.size());
        peer.give_back(second);
        peer.expect(AMQP_CHANNEL_CLOSE_METHOD);
        peer.wait_for_end();
    }});
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(offer_soon(2));
    ASSERT_TRUE(driven_->until_settled(2));
    for (const std::uint64_t ticket : {1, 2}) expect_settled(*driven_, ticket, Verdict::unknown, Remedy::retry);
}

TEST_F(AmqpHarm, AnswersToNothingWhileAChannelIsOpened) {
    start({[](Peer& peer) {
        peer.login();
        std::uint16_t number = 0;
        peer.expect(AMQP_CHANNEL_OPEN_METHOD, &number);
        peer.expect(AMQP_CONFIRM_SELECT_METHOD);
        peer.method(number, AMQP_CHANNEL_FLOW_METHOD, amqp_channel_flow_t{0});
        peer.expect(AMQP_CHANNEL_FLOW_OK_METHOD);
        peer.method(number, AMQP_CHANNEL_FLOW_METHOD, amqp_channel_flow_t{1});
        peer.expect(AMQP_CHANNEL_FLOW_OK_METHOD);
        for (const std::uint16_t other : {0, 7, 2047, 65535}) {  // channels that nobody has opened
            peer.ack(other, 1, true);
            peer.method(other, AMQP_CHANNEL_FLOW_METHOD, amqp_channel_flow_t{0});
            peer.method(other, AMQP_CHANNEL_CLOSE_OK_METHOD, amqp_channel_close_ok_t{});
        }
        peer.ack(number, 1);  // nothing was sent
        peer.expect(AMQP_CHANNEL_CLOSE_METHOD);
        peer.ack(number, 1, true);
        peer.method(number, AMQP_CHANNEL_FLOW_METHOD, amqp_channel_flow_t{0});
        peer.method(number, AMQP_CHANNEL_CLOSE_OK_METHOD, amqp_channel_close_ok_t{});
        const auto channel = peer.channel();
        peer.published();
        peer.ack(channel, 1);
        peer.wait_for_end();
    }});
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(driven_->until_settled(1));
    expect_settled(*driven_, 1, Verdict::delivered, Remedy::none);
    EXPECT_EQ(driven_->link.state, LinkState::up);
}

TEST_F(AmqpHarm, AChannelThatWeDidNotCloseIsNotClosed) {
    start({[](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        peer.published();
        peer.method(channel, AMQP_CHANNEL_CLOSE_OK_METHOD, amqp_channel_close_ok_t{});
        peer.wait_for_end();
    }});
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(driven_->until_settled(1));
    expect_settled(*driven_, 1, Verdict::unknown, Remedy::retry, "closed a channel that we did not close");
    expect_down(driven_->link, Remedy::retry, "closed a channel that we did not close");
}

TEST_F(AmqpHarm, WhoAsksWithoutEndAndReadsNothingIsLeft) {
    start({[](Peer& peer) {
        peer.login();
        const auto channel = peer.channel();
        peer.published();
        std::string flows;
        const std::string flow = peer.bytes_of(channel, AMQP_CHANNEL_FLOW_METHOD, amqp_channel_flow_t{1});
        while (flows.size() < 1 << 20) flows += flow;
        try {
            while (true) peer.send(flows);
        } catch (const std::runtime_error&) {  // the driver has left
        }
    }});
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(driven_->until([&] { return driven_->link.state == LinkState::down; }, std::chrono::seconds(60)));
    expect_down(driven_->link, Remedy::retry, Stream::reads_no_answers);
    expect_settled(*driven_, 1, Verdict::unknown, Remedy::retry, Stream::reads_no_answers);
}

TEST_F(AmqpHarm, NoWordsOfABrokerShowThePassword) {
    const auto settle = [](BrokerSettings& settings) {
        settings.url.has_user = true;
        settings.url.user = "app";
        settings.password = "s3cr3t-pass";
    };
    start({[](Peer& peer) {
               peer.login();
               const auto channel = peer.channel();
               peer.published();
               peer.close_channel(channel, 404, "NOT_FOUND - app s3cr3t-pass, AGFwcABzM2NyM3QtcGFzcw==");
               peer.method(0, AMQP_CONNECTION_BLOCKED_METHOD,
                           amqp_connection_blocked_t{to_bytes("low on s3cr3t-pass")});
               peer.wait_for_end();
           },
           [](Peer& peer) {
               peer.login();
               peer.close_connection(320, std::string("refused ") + '\0' + "app" + '\0' + "s3cr3t-pass");
           }},
          settle);
    ASSERT_TRUE(offer_soon(1));
    ASSERT_TRUE(driven_->until_settled(1));
    expect_settled(*driven_, 1, Verdict::refused, Remedy::forbidden, "404 NOT_FOUND - app ***, ***==");
    ASSERT_TRUE(driven_->until_state(LinkState::blocked));
    EXPECT_EQ(driven_->link.reason, "low on ***");
    driven_->destroy();
    BrokerSettings settings = settings_for(url_of(broker_->port()));
    settle(settings);
    driven_.emplace(settings);
    ASSERT_TRUE(driven_->until_state(LinkState::down));
    EXPECT_EQ(driven_->link.reason, "320 refused ?app?***");
}

}  // namespace eventbus::broker::amqp
