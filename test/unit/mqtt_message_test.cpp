// What it is: tests of what an MQTT message carries, and of what cannot be sent.
// Who calls it: make -C test/unit mqtt.
// Never: needs a broker.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "broker/mqtt/mqtt_message.hpp"
#include "mqtt_support.hpp"

using namespace eventbus;
using namespace eventbus::test;
namespace mqtt = eventbus::broker::mqtt;

namespace {

struct Written {
    bool sent = false;
    Settlement refusal;
    std::string bytes;
    Published published;
};

Written write(const Event& event, std::string_view name = "a/b", mqtt::Limits limits = {}, int qos = 1,
              bool retain = false, bool again = false) {
    const Addressing addressing = to_topic(qos, retain);
    mqtt::MessageWriter writer("postgresql://unit/test");
    Written written;
    written.sent =
        writer.write(written.bytes, {9, 1, &event, &addressing, name, {}}, limits, 513, again, written.refusal);
    if (!written.sent) return written;
    Bytes packet{written.bytes};
    const unsigned first = packet.number(1);
    EXPECT_EQ(first >> 4, 3u);
    const std::size_t remaining = packet.variable();
    EXPECT_EQ(remaining, packet.rest.size());
    written.published = published_of(first & 15, packet.rest, limits.version == mqtt::MqttVersion::v5);
    return written;
}

void expect_refused(const Written& written, Remedy remedy, const std::string& reason) {
    EXPECT_FALSE(written.sent);
    EXPECT_EQ(written.bytes, "");
    EXPECT_EQ(written.refusal.ticket, 9u);
    EXPECT_EQ(written.refusal.verdict, Verdict::refused);
    EXPECT_EQ(written.refusal.remedy, remedy);
    EXPECT_EQ(written.refusal.reason, reason);
}

std::string with_headers(const std::string& headers) {
    Event event = event_of(1);
    event.headers = headers;
    return write(event).refusal.reason;
}

}  // namespace

TEST(MqttMessage, CarriesEverything) {
    Event event = event_of(42, R"({"total":9})");
    event.key = "order-17";
    event.headers =
        R"({"traceparent":"00-ab","n":1.5,"yes":true,"list":["a",2,false],"priority":7,"correlation-id":"c-1",)"
        R"("reply-to":"answers/1","expiration":60001,"event-id":"forged","object":{"a":1}})";
    const Written written = write(event, "shop/order", {}, 2, true);
    ASSERT_TRUE(written.sent) << written.refusal.reason;
    const Published& got = written.published;
    EXPECT_EQ(got.topic, "shop/order");
    EXPECT_EQ(got.payload, R"({"total":9})");
    EXPECT_EQ(got.qos, 2u);
    EXPECT_EQ(got.id, 513u);
    EXPECT_TRUE(got.retain);
    EXPECT_FALSE(got.again);
    const Pairs expected = {{"format", "1"},
                            {"content type", "application/json"},
                            {"event-id", "42"},
                            {"event-topic", "shop.order.created"},
                            {"event-key", "order-17"},
                            {"event-time", "2026-11-20T04:53:00.123456Z"},
                            {"event-source", "postgresql://unit/test"},
                            {"correlation data", "c-1"},
                            {"expiry", "61"},
                            {"list", "a"},
                            {"list", "2"},
                            {"list", "false"},
                            {"n", "1.5"},
                            {"object", R"({"a":1})"},
                            {"priority", "7"},
                            {"response topic", "answers/1"},
                            {"traceparent", "00-ab"},
                            {"yes", "true"}};
    EXPECT_EQ(got.properties, expected);
}

TEST(MqttMessage, AbsentThingsAreAbsent) {
    const std::string bytes("\0\xff", 2);
    Event event = event_of(1, bytes);
    event.is_bytes = true;
    event.content_type = "image/png";
    const Written written = write(event, "t", {}, 0);
    ASSERT_TRUE(written.sent);
    EXPECT_EQ(written.published.payload, bytes);
    EXPECT_EQ(written.published.id, 0u);
    ASSERT_EQ(written.published.properties.size(), 6u);
    EXPECT_EQ(written.published.properties[0].second, "0");
    EXPECT_EQ(written.published.properties[1].second, "image/png");
}

TEST(MqttMessage, AgainIsMarked) {
    EXPECT_TRUE(write(event_of(1), "t", {}, 1, false, true).published.again);
}

TEST(MqttMessage, MQTT3CarriesThePayloadAlone) {
    Event event = event_of(1, "payload");
    event.headers = "nobody looks at them";
    const Written written = write(event, "t", {.version = mqtt::MqttVersion::v3_1_1});
    ASSERT_TRUE(written.sent);
    EXPECT_EQ(written.bytes, std::string("\x32\x0c\0\x01t\x02\x01payload", 14));
}

TEST(MqttMessage, EveryLengthOfLength) {
    for (const std::size_t size : {0, 100, 16000, 16384, 2097152, 3000000}) {
        const std::string payload(size, 'x');
        const Written written = write(event_of(1, payload));
        ASSERT_TRUE(written.sent);
        EXPECT_TRUE(written.published.payload == payload);
    }
}

TEST(MqttMessage, NamesThatNoTopicMayHave) {
    const Event event = event_of(1);
    expect_refused(write(event, ""), Remedy::park, "the destination's name is empty");
    expect_refused(write(event, "a/+/b"), Remedy::park,
                   "the destination's name has a \"+\", which no MQTT topic may have");
    expect_refused(write(event, "a/#"), Remedy::park,
                   "the destination's name has a \"#\", which no MQTT topic may have");
    expect_refused(write(event, std::string(65536, 'a')), Remedy::park,
                   "the destination's name is 65536 bytes long; MQTT takes at most 65535");
    for (const char* bad : {"\xff", "a\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe0\x80\x80"})
        expect_refused(write(event, bad), Remedy::park, "the destination's name is not valid UTF-8");
    EXPECT_TRUE(write(event, std::string(65535, 'a')).sent);
    EXPECT_TRUE(write(event, "ż/漢/🐢").sent);
}

TEST(MqttMessage, HeadersThatCannotBeSent) {
    EXPECT_EQ(with_headers("[]"), "the headers are not a JSON object that can be sent");
    EXPECT_EQ(with_headers(R"({"expiration":"soon"})"),
              "header \"expiration\" is not a number of milliseconds from 0 to 4294967295000");
    EXPECT_EQ(with_headers(R"({"expiration":-1})"),
              "header \"expiration\" is not a number of milliseconds from 0 to 4294967295000");
    EXPECT_EQ(with_headers(R"({"reply-to":"a/#"})"), "header \"reply-to\" has a \"#\", which no MQTT topic may have");
    EXPECT_EQ(with_headers(R"({"x":")" + std::string(65536, 'x') + R"("})"),
              "header \"x\" is 65536 bytes long; MQTT takes at most 65535");
    Event event = event_of(1);
    const std::string key(65536, 'k');
    event.key = key;
    expect_refused(write(event), Remedy::park, "the key is 65536 bytes long; MQTT takes at most 65535");
}

// MQTT 5.0, 1.5.4: a broker may end the connection for these, and mosquitto does.
TEST(MqttMessage, CharactersThatNoTextMayHave) {
    const std::vector<std::pair<std::string, std::string>> characters = {{std::string("\0", 1), "U+0000"},
                                                                         {"\x01", "U+0001"},
                                                                         {"\n", "U+000A"},
                                                                         {"\x1f", "U+001F"},
                                                                         {"\x7f", "U+007F"},
                                                                         {"\xc2\x80", "U+0080"},
                                                                         {"\xc2\x85", "U+0085"},
                                                                         {"\xc2\x9f", "U+009F"},
                                                                         {"\xef\xb7\x90", "U+FDD0"},
                                                                         {"\xef\xb7\xaf", "U+FDEF"},
                                                                         {"\xef\xbf\xbe", "U+FFFE"},
                                                                         {"\xef\xbf\xbf", "U+FFFF"},
                                                                         {"\xf0\x9f\xbf\xbe", "U+1FFFE"},
                                                                         {"\xf4\x8f\xbf\xbf", "U+10FFFF"}};
    for (const auto& [character, name] : characters) {
        const std::string flaw = " has the character " + name + ", which no MQTT text may have";
        const std::string text = "ä" + character + "b";
        Event event = event_of(1);
        expect_refused(write(event, text), Remedy::park, "the destination's name" + flaw);
        expect_refused(write(event, text, {.version = mqtt::MqttVersion::v3_1_1}), Remedy::park,
                       "the destination's name" + flaw);
        event.key = text;
        expect_refused(write(event), Remedy::park, "the key" + flaw);
        EXPECT_TRUE(write(event, "t", {.version = mqtt::MqttVersion::v3_1_1}).sent) << "it carries no key";
        event.key.reset();
        event.topic = text;
        expect_refused(write(event), Remedy::park, "the topic" + flaw);
        event = event_of(1, text);
        EXPECT_TRUE(write(event).sent) << "a payload may hold anything";
        const std::string json = nlohmann::json(text).dump();
        EXPECT_EQ(with_headers("{\"x\":" + json + "}"), "header \"x\"" + flaw);
        EXPECT_EQ(with_headers("{\"x\":[1," + json + "]}"), "header \"x\"" + flaw);
        EXPECT_EQ(with_headers("{" + json + ":1}"), "a header's name" + flaw);
        EXPECT_EQ(with_headers("{\"reply-to\":" + json + "}"), "header \"reply-to\"" + flaw);
        EXPECT_EQ(with_headers("{\"correlation-id\":" + json + "}"), "") << "binary data";
    }
    for (const char* good : {" ", "~", "\xc2\xa0", "\xef\xb7\x8f", "\xef\xb7\xb0", "\xef\xbf\xbd", "\xf0\x9f\x90\xa2"})
        EXPECT_TRUE(write(event_of(1), good).sent) << good;
}

// An origin is the same for all events, and none of them is to blame for it.
TEST(MqttMessage, OriginIsMadeSendable) {
    const Addressing addressing = to_topic();
    const Event event = event_of(1);
    for (const auto& [source, sent] : {std::pair{"postgresql://a/b\nc", "postgresql://a/b?c"},
                                       std::pair{"\xc2\x85\xff", "??"}, std::pair{"ä", "ä"}}) {
        mqtt::MessageWriter writer(source);
        std::string bytes;
        Settlement refusal;
        ASSERT_TRUE(writer.write(bytes, {9, 1, &event, &addressing, "t", {}}, {}, 1, false, refusal));
        EXPECT_NE(bytes.find("event-source" + std::string{'\0', static_cast<char>(std::strlen(sent))} + sent),
                  std::string::npos);
    }
}

TEST(MqttMessage, WhatTheBrokerDoesNotTake) {
    const std::string payload(1000, 'x');
    const Event event = event_of(1, payload);
    const std::size_t size = write(event).bytes.size();
    EXPECT_TRUE(write(event, "a/b", {.maximum_packet = size}).sent);
    expect_refused(
        write(event, "a/b", {.maximum_packet = size - 1}), Remedy::park,
        "too large for the broker: " + std::to_string(size) + " bytes, it takes " + std::to_string(size - 1));
    expect_refused(write(event, "a/b", {.maximum_qos = 1}, 2), Remedy::fix_settings,
                   "the broker takes QoS 1 at most, the route has QoS 2");
    expect_refused(write(event, "a/b", {.retain_available = false}, 1, true), Remedy::fix_settings,
                   "the broker does not retain messages, which the route asks for");
}
