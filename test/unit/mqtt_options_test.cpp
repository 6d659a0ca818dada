// What it is: tests of the options that only MQTT has.
// Who calls it: make -C test/unit mqtt.
// Never: opens a socket.
#include <gtest/gtest.h>

#include <string>

#include "mqtt_support.hpp"

using namespace eventbus;
using namespace eventbus::test;
using eventbus::broker::mqtt::MqttOptions;
using eventbus::broker::mqtt::MqttVersion;

namespace {

MqttOptions read(const std::string& json) {
    return eventbus::broker::mqtt::options_of(mqtt_settings("mqtt://h", json));
}

}  // namespace

TEST(MqttOptions, AreRead) {
    const MqttOptions defaults = read("{}");
    EXPECT_EQ(defaults.version, MqttVersion::any);
    EXPECT_EQ(defaults.client_id, "");
    EXPECT_EQ(defaults.session_expiry_s, 3600u);
    EXPECT_EQ(defaults.confirm_timeout_s, 60u);
    EXPECT_FALSE(defaults.will);
    const MqttOptions all = read(R"({"version":"3.1.1","client_id":"me","session_expiry":4294967295,"confirm_timeout":0,
                 "will":{"topic":"gone/for/good","payload":"bye","qos":2,"retain":true}})");
    EXPECT_EQ(all.version, MqttVersion::v3_1_1);
    EXPECT_EQ(all.client_id, "me");
    EXPECT_EQ(all.session_expiry_s, 4294967295u);
    EXPECT_EQ(all.confirm_timeout_s, 0u);
    ASSERT_TRUE(all.will);
    EXPECT_EQ(all.will->topic, "gone/for/good");
    EXPECT_EQ(all.will->payload, "bye");
    EXPECT_EQ(all.will->qos, 2);
    EXPECT_TRUE(all.will->retain);
    EXPECT_EQ(read(R"({"version":5})").version, MqttVersion::v5);
    EXPECT_EQ(read(R"({"will":{"topic":"t"}})").will->payload, "");
}

TEST(MqttOptions, WrongValuesNameTheOptionAndListTheKnown) {
    const std::pair<const char*, const char*> wrong[] = {
        {"version", R"("4")"},
        {"version", "3"},
        {"client_id", R"("")"},
        {"client_id", "7"},
        {"session_expiry", "-1"},
        {"session_expiry", "4294967296"},
        {"will", R"("gone")"},
        {"will", "{}"},
        {"will", R"({"topic":""})"},
        {"will", R"({"topic":"a/#"})"},
        {"will", R"({"topic":"a","payload":1})"},
        {"will", R"({"topic":"a","qos":3})"},
        {"will", R"({"topic":"a","retain":1})"},
        {"will", R"({"topic":"a","delay":1})"},
    };
    for (const auto& [name, value] : wrong) {
        const std::string json = std::string("{\"") + name + "\":" + value + "}";
        try {
            static_cast<void>(read(json));
            ADD_FAILURE() << json;
        } catch (const BadInput& error) {
            EXPECT_EQ(error.message(), std::string("invalid value for broker option \"") + name + "\"") << json;
            EXPECT_NE(error.hint().find("window, confirm_timeout, version, client_id, session_expiry, will."),
                      std::string::npos)
                << error.hint();
        }
    }
}

TEST(MqttOptions, OfRoutes) {
    const Addressing none = addressing_of("topic");
    EXPECT_EQ(eventbus::broker::mqtt::route_of(none).qos, 1);
    EXPECT_FALSE(eventbus::broker::mqtt::route_of(none).retain);
    const Addressing all = to_topic(2, true);
    EXPECT_EQ(eventbus::broker::mqtt::route_of(all).qos, 2);
    EXPECT_TRUE(eventbus::broker::mqtt::route_of(all).retain);
    for (const char* bad : {R"({"qos":3})", R"({"qos":-1})", R"({"retain":1})"})
        EXPECT_THROW(addressing_of("topic", bad), BadInput) << bad;
}
