// What it is: tests of the MQTT driver that only looks: how it connects, what it makes of the answer to the login.
// Who calls it: make -C test/unit mqtt.
// Never: needs a broker.
#include "look_support.hpp"
#include "mqtt_support.hpp"

using namespace eventbus;
using namespace eventbus::test;

namespace {

std::string looked(const std::string& limits, const std::string& name = "", bool varies = false, int qos = 1,
                   bool retain = false, const std::string& options = "{}", Hello* said = nullptr) {
    Hello hello;
    std::string text;
    {
        FakeBroker broker({[&](Peer& peer) {
            hello = peer.hello();
            peer.connack(0, false, limits);
            peer.wait_for_end();
        }});
        text = shown(look(mqtt_settings(broker.url(), options), "topic", name, varies, 3s, route_options(qos, retain)));
    }
    if (said != nullptr) *said = hello;
    return text;
}

}  // namespace

TEST(MqttLook, PutsNobodyOutAndLeavesNothing) {
    const std::string options =
        R"({"client_id": "mine", "session_expiry": 60, "will": {"topic": "w", "payload": "gone"}, "version": "5"})";
    Hello hello;
    const std::string text = looked("", "t", false, 1, false, options, &hello);
    EXPECT_TRUE(hello.client_id.starts_with("mine-test-")) << hello.client_id;
    EXPECT_EQ(hello.client_id.size(), 16u);
    EXPECT_TRUE(hello.will_topic.empty());
    EXPECT_TRUE(hello.properties.empty()) << "no session";
    EXPECT_NE(hello.flags & clean_start, 0u);
    expect_part(text, "login: yes without a user, client_id \"mine-test-");
    Hello drawn;
    looked("", "", false, 1, false, R"({"version": "5"})", &drawn);
    EXPECT_EQ(drawn.client_id.size(), 23u);
    EXPECT_TRUE(drawn.properties.empty());
}

TEST(MqttLook, SaysWhatTheBrokerTakes) {
    const std::string limits = property(0x21, 10, 2) + property(0x24, 1, 1) + property(0x25, 0, 1) +
                               property(0x27, 60, 4) + property(0x13, 20, 2);
    expect_part(looked(limits),
                "broker: yes MQTT 5, which does not tell what the broker is; QoS 1 at most, 10 open messages, "
                "packets of at most 60 bytes, does not retain messages, heartbeat 20 s");
    expect_part(looked("", "shop/orders"),
                "destination: yes topic 'shop/orders' needs not be made | permission: unknown MQTT");
    expect_part(looked(limits, "t", false, 2), "destination: no the broker takes QoS 1 at most, the route has QoS 2");
    expect_part(looked(limits, "{topic}", true, 1, true), "destination: no the broker does not retain messages");
    expect_part(looked(limits, "{topic}", true), "destination: unknown its name is made of each event: topic:{topic}");
    expect_part(looked(limits, std::string(54, 't')), "destination: no the topic's name alone is too large");
}

TEST(MqttLook, SaysWhyItIsNotLetIn) {
    FakeBroker broker({[](Peer& peer) {
        peer.hello();
        peer.connack(0x85);
        peer.wait_for_end();
    }});
    const std::string text = shown(look(mqtt_settings(broker.url(), R"({"client_id": "mine", "version": "5"})")));
    expect_part(text, "login: no login refused: client identifier not valid (0x85)");
    expect_part(text, "this was client_id \"mine-test-");
    FakeBroker silent({[](Peer& peer) { peer.wait_for_end(); }});
    expect_part(last(look(mqtt_settings(silent.url()), "", "", false, 1s)),
                "login: no the broker did not answer the login within 1 s; if it only knows MQTT 3.1.1");
}

TEST(MqttLook, TakesNoMessages) {
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        peer.wait_for_end();
    }});
    BrokerSettings settings = mqtt_settings(broker.url());
    settings.look_ms = 5000;
    Pump pump(settings);
    ASSERT_TRUE(pump.up());
    EXPECT_FALSE(pump.offer(1, event_of(1)));
}
