// What it is: AMQP frames, messages and headers, bytes only.
// Who calls it: make -C test/unit amqp.
// Never: opens a socket.
#include <gtest/gtest.h>

#include "amqp_frame_reader.hpp"
#include "broker/amqp/amqp_message.hpp"
#include "broker/amqp/methods.hpp"
#include "module_support.hpp"

namespace eventbus::broker::amqp {
namespace {

TEST(AmqpFrame, IsReadWholePartialOrBroken) {
    FrameWriter writer;
    std::string bytes;
    writer.heartbeat(bytes);
    EXPECT_EQ(bytes, std::string("\x08\0\0\0\0\0\0\xCE", 8));
    const amqp_basic_ack_t ack{7, 1};
    ASSERT_TRUE(writer.method(bytes, 258, AMQP_BASIC_ACK_METHOD, &ack));
    EXPECT_EQ(bytes.substr(8), std::string("\x01\x01\x02\0\0\0\x0D\0\x3C\0\x50\0\0\0\0\0\0\0\x07\x01\xCE", 21));

    Frame frame;
    ASSERT_EQ(read_frame(bytes, 4096, frame), Framing::whole);
    EXPECT_EQ(frame.type, AMQP_FRAME_HEARTBEAT);
    EXPECT_EQ(frame.size, 8u);
    const std::string second = bytes.substr(8);
    for (std::size_t size = 0; size < second.size(); ++size)
        EXPECT_EQ(read_frame(std::string_view(second).substr(0, size), 4096, frame), Framing::partial);
    ASSERT_EQ(read_frame(second, 4096, frame), Framing::whole);
    EXPECT_EQ(frame.channel, 258);
    FrameReader reader;
    const auto method = reader.method(frame.payload);
    ASSERT_EQ(method.id, AMQP_BASIC_ACK_METHOD);
    EXPECT_EQ(method.as<amqp_basic_ack_t>().delivery_tag, 7u);

    std::string bad_end = second;
    bad_end.back() = 'x';
    EXPECT_EQ(read_frame(bad_end, 4096, frame), Framing::broken);
    EXPECT_EQ(read_frame(second, 20, frame), Framing::broken);
    EXPECT_EQ(read_frame(second, 21, frame), Framing::whole);
}

TEST(AmqpFrame, UnreadableContentsAreTold) {
    EXPECT_FALSE(read_method("").is_whole);
    EXPECT_FALSE(read_method({"\0\x3C\0\x50\0", 5}).is_whole);    // an ack that ends too early
    EXPECT_FALSE(read_method({"\x7F\xFF\0\x50\0", 5}).is_heard);  // no such class
    EXPECT_EQ(read_content_header({"\0\x3C\0\0", 4}).message_id, "");
    EXPECT_EQ(read_content_header({"\0\x3C\0\0\0\0\0\0\0\0\0\5\xF0\0\xFF", 15}).message_id, "");
    EXPECT_EQ(read_content_header({"\0\x0A\0\0\0\0\0\0\0\0\0\5\0\x80\1i", 16}).message_id, "");  // another class
}

// Flag words that never end, a text that claims more than there is, tables that are nested or cut.
TEST(AmqpFrame, AnIdIsFoundBehindWhateverStandsBeforeIt) {
    const std::string begin("\0\x3C\0\0\0\0\0\0\0\0\0\7", 12);
    const auto id_in = [&](const std::string& properties) {
        const std::string payload = begin + properties;
        const ContentHeader header = read_content_header(payload);
        EXPECT_EQ(header.body_size, 7u);
        return std::string(header.message_id);
    };
    EXPECT_EQ(id_in(std::string("\0\x80\x02", 3) + "17"), "17");
    EXPECT_EQ(id_in(std::string("\0\0", 2)), "");
    EXPECT_EQ(id_in(std::string("\0\x81\0\1\0\0\x02", 7) + "17"), "17");  // three words of flags
    EXPECT_EQ(id_in(std::string("\xFF\xFE\1t\1e\0\0\0\2xx\2\5\1c\1r\1x\x02", 21) + "17"), "17");
    EXPECT_EQ(id_in(std::string("\xFF\xFE\1t\1e\xFF\xFF\xFF\xFF\2xx\2\5\1c\1r\1x\x02", 21) + "17"), "");
    EXPECT_EQ(id_in(std::string("\0\x80\xFF", 3) + "17"), "");
    std::string endless(1000, '\xFF');
    EXPECT_EQ(id_in(endless), "");
    const std::string ours = begin + std::string("\0\x80\x02", 3) + "17";
    for (std::size_t size = 0; size < ours.size(); ++size)
        EXPECT_EQ(read_content_header(ours.substr(0, size)).message_id, "") << size;
}

class AmqpMessage : public testing::Test {
 protected:
    AmqpMessage() {
        event_.id = EventId::of_log(9007199254740993);
        event_.published_at = 1'700'000'000'123'456;
        event_.topic = "shop.order.created";
        event_.payload = R"({"n":1})";
        event_.content_type = "application/json";
        outgoing_.event = &event_;
        outgoing_.addressing = &addressing_;
        outgoing_.name = "orders";
        outgoing_.routing_key = "shop.order";
        addressing_ = test::addressing_of("exchange");
    }

    // Writes the message and reads it back.
    std::string write() {
        out_.clear();
        reader_.release();
        const std::string problem = messages_.write(writer_, out_, 5, outgoing_);
        if (!problem.empty()) {
            EXPECT_EQ(out_, "") << "half a message";
            return problem;
        }
        std::string_view left = out_;
        const auto next = [&] {
            Frame frame;
            EXPECT_EQ(read_frame(left, writer_.frame_max(), frame), Framing::whole);
            EXPECT_EQ(frame.channel, 5);
            left.remove_prefix(frame.size);
            return frame;
        };
        const auto method = reader_.method(next().payload);
        EXPECT_EQ(method.id, AMQP_BASIC_PUBLISH_METHOD);
        publish_ = method.as<amqp_basic_publish_t>();
        const auto header = reader_.header(next().payload);
        properties_ = *header.properties;
        body_.clear();
        while (!left.empty()) body_ += next().payload;
        EXPECT_EQ(header.body_size, body_.size());
        return {};
    }
    const amqp_field_value_t* header(std::string_view name) const {
        for (int i = 0; i < properties_.headers.num_entries; ++i)
            if (to_view(properties_.headers.entries[i].key) == name) return &properties_.headers.entries[i].value;
        return nullptr;
    }
    std::string text_header(std::string_view name) const {
        const auto* value = header(name);
        return value && value->kind == AMQP_FIELD_KIND_UTF8 ? std::string(to_view(value->value.bytes)) : "(none)";
    }

    Event event_;
    Addressing addressing_;
    Outgoing outgoing_;
    MessageWriter messages_{"postgresql://c/db"};
    FrameWriter writer_;
    FrameReader reader_;
    std::string out_;
    amqp_basic_publish_t publish_{};
    amqp_basic_properties_t properties_{};
    std::string body_;
};

TEST_F(AmqpMessage, CarriesWhatTheContractSays) {
    event_.key = "order-17";
    ASSERT_EQ(write(), "");
    EXPECT_EQ(to_view(publish_.exchange), "orders");
    EXPECT_EQ(to_view(publish_.routing_key), "shop.order");
    EXPECT_TRUE(publish_.mandatory);
    EXPECT_FALSE(publish_.immediate);
    EXPECT_EQ(to_view(properties_.message_id), "9007199254740993");
    EXPECT_EQ(to_view(properties_.type), "shop.order.created");
    EXPECT_EQ(to_view(properties_.content_type), "application/json");
    EXPECT_EQ(properties_.timestamp, 1'700'000'000u);
    EXPECT_EQ(to_view(properties_.app_id), "postgresql://c/db");
    EXPECT_EQ(properties_.delivery_mode, 2);
    EXPECT_EQ(text_header("event-key"), "order-17");
    EXPECT_EQ(text_header("event-time"), "2023-11-14T22:13:20.123456Z");
    EXPECT_EQ(properties_.headers.num_entries, 2);
    EXPECT_EQ(body_, event_.payload);
}

TEST_F(AmqpMessage, QueuesAreReachedThroughTheDefaultExchange) {
    addressing_ = test::addressing_of("queue", R"({"persistent":false})");
    ASSERT_EQ(write(), "");
    EXPECT_EQ(to_view(publish_.exchange), "");
    EXPECT_EQ(to_view(publish_.routing_key), "orders");
    EXPECT_EQ(properties_.delivery_mode, 1);
    EXPECT_EQ(header("event-key"), nullptr);
}

TEST_F(AmqpMessage, HeadersKeepTheirTypes) {
    event_.headers = R"({"s":"grün","i":-5,"l":-5000000000,"big":9223372036854775808,"r":1.5,"b":true,"n":null,
        "a":["x",2,false,["y"]],"o":{"k":[1,{"z":null}]},"traceparent":"00-ab-cd-01"})";
    ASSERT_EQ(write(), "");
    EXPECT_EQ(text_header("s"), "grün");
    ASSERT_TRUE(header("i"));
    EXPECT_EQ(header("i")->kind, AMQP_FIELD_KIND_I32);
    EXPECT_EQ(header("i")->value.i32, -5);
    ASSERT_TRUE(header("l"));
    EXPECT_EQ(header("l")->kind, AMQP_FIELD_KIND_I64);
    EXPECT_EQ(header("l")->value.i64, -5000000000);
    EXPECT_EQ(header("big")->kind, AMQP_FIELD_KIND_F64);
    EXPECT_DOUBLE_EQ(header("big")->value.f64, 9223372036854775808.0);
    EXPECT_EQ(header("r")->kind, AMQP_FIELD_KIND_F64);
    EXPECT_DOUBLE_EQ(header("r")->value.f64, 1.5);
    EXPECT_EQ(header("b")->kind, AMQP_FIELD_KIND_BOOLEAN);
    EXPECT_TRUE(header("b")->value.boolean);
    EXPECT_EQ(header("n")->kind, AMQP_FIELD_KIND_VOID);
    ASSERT_EQ(header("a")->kind, AMQP_FIELD_KIND_ARRAY);
    const amqp_array_t& array = header("a")->value.array;
    ASSERT_EQ(array.num_entries, 4);
    EXPECT_EQ(to_view(array.entries[0].value.bytes), "x");
    EXPECT_EQ(array.entries[1].value.i32, 2);
    EXPECT_EQ(array.entries[3].kind, AMQP_FIELD_KIND_ARRAY);
    EXPECT_EQ(text_header("o"), R"({"k":[1,{"z":null}]})");
    EXPECT_EQ(text_header("traceparent"), "00-ab-cd-01");
}

TEST_F(AmqpMessage, SomeHeadersAreProperties) {
    event_.headers = R"({"correlation-id":"c-1","reply-to":17,"expiration":60000,"priority":"9"})";
    ASSERT_EQ(write(), "");
    EXPECT_EQ(to_view(properties_.correlation_id), "c-1");
    EXPECT_EQ(to_view(properties_.reply_to), "17");
    EXPECT_EQ(to_view(properties_.expiration), "60000");
    EXPECT_EQ(properties_.priority, 9);
    EXPECT_EQ(properties_.headers.num_entries, 1);  // event-time
    event_.headers = {};
    ASSERT_EQ(write(), "");
    EXPECT_FALSE(properties_._flags & (AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG |
                                       AMQP_BASIC_EXPIRATION_FLAG | AMQP_BASIC_PRIORITY_FLAG));
}

TEST_F(AmqpMessage, OurHeadersCannotBeReplaced) {
    event_.key = "true key";
    event_.headers = R"({"event-key":"forged","event-time":"never","x":"y"})";
    ASSERT_EQ(write(), "");
    EXPECT_EQ(text_header("event-key"), "true key");
    EXPECT_EQ(text_header("event-time"), "2023-11-14T22:13:20.123456Z");
    EXPECT_EQ(properties_.headers.num_entries, 3);
    event_.key.reset();
    ASSERT_EQ(write(), "");
    EXPECT_EQ(header("event-key"), nullptr);
}

TEST_F(AmqpMessage, HeadersThatCannotBeSentAreTold) {
    const auto problem = [&](const std::string& headers) {
        event_.headers = headers;
        return write();
    };
    const std::string longer(256, 'x');
    EXPECT_NE(problem(R"({"expiration":"soon"})").find("\"expiration\" is not a number"), std::string::npos);
    EXPECT_NE(problem(R"({"expiration":4294967296})").find("\"expiration\""), std::string::npos);
    EXPECT_NE(problem(R"({"priority":256})").find("\"priority\""), std::string::npos);
    EXPECT_NE(problem(R"({"priority":-1})").find("\"priority\""), std::string::npos);
    EXPECT_NE(problem(R"({"correlation-id":")" + longer + "\"}").find("256 bytes"), std::string::npos);
    EXPECT_NE(problem(R"({")" + longer + "\":1}").find("256 bytes"), std::string::npos);
    EXPECT_NE(problem("[1]").find("not a JSON object"), std::string::npos);
    EXPECT_NE(problem("{\"a\":1e999}").find("not a JSON object"), std::string::npos);
    EXPECT_EQ(problem(R"({"priority":255,"expiration":"4294967295"})"), "");
}

TEST_F(AmqpMessage, FrameMaxBoundsHeadersAndSplitsBodies) {
    writer_.set_frame_max(4096);
    const std::string key(5000, 'k');
    event_.key = key;
    EXPECT_NE(write().find("at most 4096 bytes"), std::string::npos);
    event_.key.reset();
    for (const std::size_t size : {0, 1, 4088, 4089, 8176, 8177}) {
        const std::string payload(size, 'p');
        event_.payload = payload;
        ASSERT_EQ(write(), "");
        EXPECT_EQ(body_, payload);
    }
}

TEST_F(AmqpMessage, ASourceTooLongIsCutBetweenCharacters) {
    std::string source(254, 's');
    source += "ü";
    messages_ = MessageWriter(source);
    ASSERT_EQ(write(), "");
    EXPECT_EQ(to_view(properties_.app_id), std::string(254, 's'));
    event_.published_at = -1;
    ASSERT_EQ(write(), "");
    EXPECT_EQ(properties_.timestamp, 0u);
}

}  // namespace
}  // namespace eventbus::broker::amqp
