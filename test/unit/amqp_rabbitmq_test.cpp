// What it is: the AMQP driver at a real, private RabbitMQ, read by an independent client.
// Who calls it: make -C test/unit amqp.
// Never: talks to a broker that it did not start.
#include <deque>
#include <optional>

#include "amqp_harness.hpp"
#include "amqp_node.hpp"
#include "broker/amqp/frame.hpp"

namespace eventbus::broker::amqp {
namespace {

class AmqpRabbit : public testing::Test {
 protected:
    static void SetUpTestSuite() {
        node_.emplace();
        const auto deadline = Clock::now() + std::chrono::seconds(60);
        bool ready = false;
        while (!ready && Clock::now() < deadline) {
            ready = Reader(node_->port()).ok();
            if (!ready) std::this_thread::sleep_for(std::chrono::milliseconds(100));
        }
        ASSERT_TRUE(ready) << "the node did not start";
    }
    static void TearDownTestSuite() { node_.reset(); }

    AmqpRabbit() : reader_(node_->port()), driven_(settings_for(url_of(node_->port()))) {
        EXPECT_TRUE(reader_.ok());
        EXPECT_TRUE(driven_.until_state(LinkState::up)) << driven_.link.reason;
    }
    static std::optional<Node> node_;
    Reader reader_;
    Driven driven_;
};
std::optional<Node> AmqpRabbit::node_;

TEST_F(AmqpRabbit, MessagesArriveAsTheContractSays) {
    reader_.exchange("shop");
    reader_.queue("all");
    reader_.bind("all", "shop", "shop.#");
    Event event = event_of(42, R"({"total":12})");
    event.key = "order-17";
    event.headers = R"({"tenant":"grün","n":7,"ok":true,"list":[1,"b"],"correlation-id":"c9","expiration":"600000"})";
    ASSERT_TRUE(driven_.offer_soon(1, event, to_exchange, "shop", "shop.order.created"));
    ASSERT_TRUE(driven_.until_settled(1));
    expect_settled(driven_, 1, Verdict::delivered, Remedy::none);

    const auto message = reader_.get("all");
    ASSERT_TRUE(message.got);
    EXPECT_EQ(message.exchange, "shop");
    EXPECT_EQ(message.routing_key, "shop.order.created");
    EXPECT_EQ(message.body, R"({"total":12})");
    const amqp_basic_properties_t& properties = message.properties;
    EXPECT_EQ(to_view(properties.message_id), "42");
    EXPECT_EQ(to_view(properties.type), "shop.order.created");
    EXPECT_EQ(to_view(properties.content_type), "application/json");
    EXPECT_EQ(to_view(properties.app_id), "postgresql://here/db");
    EXPECT_EQ(to_view(properties.correlation_id), "c9");
    EXPECT_EQ(to_view(properties.expiration), "600000");
    EXPECT_EQ(properties.timestamp, 1'795'150'380u);
    EXPECT_EQ(properties.delivery_mode, 2);
    std::map<std::string, amqp_field_value_t> headers;
    for (int i = 0; i < properties.headers.num_entries; ++i)
        headers[std::string(to_view(properties.headers.entries[i].key))] = properties.headers.entries[i].value;
    EXPECT_EQ(headers.size(), 6u);
    EXPECT_EQ(to_view(headers["event-key"].value.bytes), "order-17");
    EXPECT_EQ(to_view(headers["event-time"].value.bytes), "2026-11-20T04:53:00.123456Z");
    EXPECT_EQ(to_view(headers["tenant"].value.bytes), "grün");
    EXPECT_EQ(headers["n"].value.i64, 7);
    EXPECT_EQ(headers["ok"].value.boolean, 1);
    EXPECT_EQ(headers["list"].value.array.num_entries, 2);
}

TEST_F(AmqpRabbit, BodiesOfAllSizesArriveWhole) {
    reader_.queue("bodies");
    std::deque<std::string> bodies;
    std::deque<Event> events;
    for (const std::size_t size : {0, 1, 131064, 131065, 3000000}) {
        std::string& body = bodies.emplace_back(size, ' ');
        for (std::size_t i = 0; i < size; ++i) body[i] = static_cast<char>(i * 31 + i / 1000);
        events.push_back(event_of(static_cast<std::int64_t>(events.size()), body));
    }
    for (std::size_t i = 0; i < events.size(); ++i)
        ASSERT_TRUE(driven_.until([&] { return driven_.offer(i, events[i], to_queue, "bodies"); }));
    ASSERT_TRUE(driven_.until_settled(events.size()));
    for (std::size_t i = 0; i < events.size(); ++i) {
        expect_settled(driven_, i, Verdict::delivered, Remedy::none);
        const auto message = reader_.get("bodies");
        ASSERT_TRUE(message.got);
        EXPECT_TRUE(message.body == bodies[i]) << i;
    }
}

TEST_F(AmqpRabbit, WhatNobodyTakesIsParkedAndAMissingQueueHoldsItsRoute) {
    reader_.exchange("lonely");
    const Event event = event_of(1);
    ASSERT_TRUE(driven_.offer_soon(1, event, to_exchange, "lonely", "nobody.cares"));
    ASSERT_TRUE(driven_.offer_soon(2, event, to_queue, "no such queue", "", 2));
    ASSERT_TRUE(driven_.until_settled(2));
    expect_settled(driven_, 1, Verdict::refused, Remedy::park,
                   "312 NO_ROUTE: exchange 'lonely', routing key 'nobody.cares'");
    expect_settled(driven_, 2, Verdict::refused, Remedy::fix_settings, "exchange '', routing key 'no such queue'");
    EXPECT_EQ(driven_.link.state, LinkState::up);
}

TEST_F(AmqpRabbit, AMissingExchangeHoldsItsRouteUntilItIsThere) {
    reader_.queue("fine");
    const Event event = event_of(1);
    ASSERT_TRUE(driven_.offer_soon(1, event, to_exchange, "later", "k", 1));
    ASSERT_TRUE(driven_.offer_soon(2, event, to_exchange, "later", "k", 1));
    ASSERT_TRUE(driven_.offer_soon(3, event, to_queue, "fine", "", 2));
    ASSERT_TRUE(driven_.until_settled(3));
    expect_settled(driven_, 1, Verdict::refused, Remedy::fix_settings, "404 NOT_FOUND - no exchange 'later'");
    expect_settled(driven_, 2, Verdict::unknown, Remedy::retry, "404 NOT_FOUND - no exchange 'later'");
    expect_settled(driven_, 3, Verdict::delivered, Remedy::none);

    reader_.exchange("later");
    reader_.bind("fine", "later", "#");
    ASSERT_TRUE(driven_.offer_soon(4, event, to_exchange, "later", "k", 1));
    ASSERT_TRUE(driven_.until_settled(4));
    expect_settled(driven_, 4, Verdict::delivered, Remedy::none);
}

TEST_F(AmqpRabbit, AFullQueueIsTriedAgain) {
    amqp_table_entry_t arguments[2]{};
    arguments[0].key = amqp_cstring_bytes("x-max-length");
    arguments[0].value.kind = AMQP_FIELD_KIND_I32;
    arguments[0].value.value.i32 = 1;
    arguments[1].key = amqp_cstring_bytes("x-overflow");
    arguments[1].value.kind = AMQP_FIELD_KIND_UTF8;
    arguments[1].value.value.bytes = amqp_cstring_bytes("reject-publish");
    reader_.queue("small", {2, arguments});
    const Event event = event_of(1);
    ASSERT_TRUE(driven_.offer_soon(1, event, to_queue, "small"));
    ASSERT_TRUE(driven_.until_settled(1));
    expect_settled(driven_, 1, Verdict::delivered, Remedy::none);
    ASSERT_TRUE(driven_.offer_soon(2, event, to_queue, "small"));
    ASSERT_TRUE(driven_.until_settled(2));
    expect_settled(driven_, 2, Verdict::refused, Remedy::retry, "basic.nack");
}

// RabbitMQ closes the channel for a CC header that is not a list, and does not say whose it was.
TEST_F(AmqpRabbit, APoisonousMessageIsFoundAndTheOthersArrive) {
    reader_.queue("careful");
    std::deque<Event> events;
    for (std::int64_t id = 0; id < 20; ++id) events.push_back(event_of(id));
    events[7].headers = R"({"CC":"not a list"})";
    events[8].headers = events[7].headers;
    std::map<std::int64_t, int> delivered;
    std::vector<std::int64_t> parked;
    std::deque<std::size_t> waiting;
    for (std::size_t i = 0; i < events.size(); ++i) waiting.push_back(i);
    std::map<std::uint64_t, std::size_t> offered;
    std::uint64_t ticket = 0;
    std::size_t seen = 0;
    ASSERT_TRUE(driven_.until([&] {
        std::vector<std::size_t> again;
        for (; seen < driven_.order.size(); ++seen) {
            const Settlement& settlement = driven_.settlements.at(driven_.order[seen]);
            const std::size_t index = offered.at(settlement.ticket);
            if (settlement.verdict == Verdict::delivered)
                ++delivered[events[index].id.number];
            else if (settlement.remedy == Remedy::park)
                parked.push_back(events[index].id.number);
            else
                again.push_back(index);
        }
        waiting.insert(waiting.begin(), again.begin(), again.end());
        while (!waiting.empty() && driven_.offer(ticket, events[waiting.front()], to_queue, "careful")) {
            offered[ticket++] = waiting.front();
            waiting.pop_front();
        }
        return delivered.size() + parked.size() == events.size();
    })) << delivered.size()
        << " delivered, " << parked.size() << " parked";
    EXPECT_EQ(parked, (std::vector<std::int64_t>{7, 8}));
    EXPECT_EQ(driven_.link.state, LinkState::up);
}

TEST_F(AmqpRabbit, WrongPasswordsAndVirtualHostsAreForTheSettings) {
    Driven refused(settings_for("amqp://guest:wrong@127.0.0.1:" + std::to_string(node_->port())));
    ASSERT_TRUE(refused.until_state(LinkState::down));
    EXPECT_EQ(refused.link.remedy, Remedy::fix_settings);
    EXPECT_NE(refused.link.reason.find("403 ACCESS_REFUSED"), std::string::npos) << refused.link.reason;
    EXPECT_EQ(refused.link.reason.find("wrong"), std::string::npos) << refused.link.reason;
    Driven lost(settings_for(url_of(node_->port(), "/nowhere")));
    ASSERT_TRUE(lost.until_state(LinkState::down));
    EXPECT_EQ(lost.link.remedy, Remedy::fix_settings);
    EXPECT_NE(lost.link.reason.find("530 NOT_ALLOWED"), std::string::npos) << lost.link.reason;
}

TEST_F(AmqpRabbit, ManyMessagesArriveOnceAndInOrder) {
    constexpr std::uint64_t count = 20000;
    reader_.queue("many");
    std::vector<Event> events;
    for (std::uint64_t id = 0; id < count; ++id) events.push_back(event_of(static_cast<std::int64_t>(id), "payload"));
    std::uint64_t next = 0;
    ASSERT_TRUE(driven_.until(
        [&] {
            while (next < count && driven_.offer(next, events[next], to_queue, "many")) ++next;
            return driven_.settlements.size() == count;
        },
        std::chrono::seconds(60)));
    for (const auto& [ticket, settlement] : driven_.settlements)
        ASSERT_EQ(settlement.verdict, Verdict::delivered) << ticket << ": " << settlement.reason;
    EXPECT_EQ(driven_.order.size(), count);
    EXPECT_EQ(reader_.queue("many"), count);
    for (int id = 0; id < 1000; ++id) ASSERT_EQ(to_view(reader_.get("many").properties.message_id), std::to_string(id));
}

}  // namespace
}  // namespace eventbus::broker::amqp
