// What it is: tests of the version that the MQTT driver speaks, to brokers that refuse 5, hang up on it or say nothing.
// Who calls it: make -C test/unit mqtt.
// Never: asserts how fast something is.
#include <gtest/gtest.h>

#include "mqtt_support.hpp"

using namespace eventbus;
using namespace eventbus::test;

namespace {

constexpr unsigned version_5 = 5;
constexpr unsigned version_3 = 4;  // 3.1.1's number

using Versions = std::vector<unsigned>;

// A broker for a row of connections: what each was asked with, and answers of the same broker to all of them.
class Versioned {
 public:
    // answers(version, the how-manieth connection): whether it is let in; hung up on otherwise.
    explicit Versioned(std::function<bool(unsigned, std::size_t)> answers)
        : broker_({[this, answers = std::move(answers)](Peer& peer) {
              const unsigned version = peer.hello().version;
              asked_.push_back(version);
              if (!answers(version, asked_.size())) return;
              peer.connack();
              published_.push_back(peer.published());
              peer.answer(puback, published_.back().id);
              peer.wait_for_end();
          }}) {}

    // Connects so many times; what the last one says.
    Link connect(std::size_t times) {
        Link link;
        for (; times > 0; --times) {
            Pump pump(mqtt_settings(broker_.url()));
            pump.up();
            link = pump.link;
        }
        return link;
    }
    // Publishes over another connection.
    Published deliver() {
        Pump pump(mqtt_settings(broker_.url()));
        EXPECT_TRUE(pump.up()) << pump.link.reason;
        EXPECT_TRUE(pump.offer(1, event_of(1)));
        EXPECT_TRUE(pump.settles(1));
        expect_settled(pump, 1, Verdict::delivered);
        return published_.empty() ? Published() : published_.back();
    }
    const Versions& asked() const { return asked_; }

 private:
    Versions asked_;
    std::vector<Published> published_;
    FakeBroker broker_;
};

const std::string hung_up =
    "connection lost before the broker answered the login: the server closed the connection; if it wants TLS on this "
    "port, use mqtts://";
const std::string if_not_5 = "; if it only knows MQTT 3.1.1, set \"version\": \"3.1.1\" in the broker's options";

bool has_id(const Published& message) {
    return std::find(message.properties.begin(), message.properties.end(),
                     std::pair<std::string, std::string>{"event-id", "1"}) != message.properties.end();
}

}  // namespace

TEST(MqttVersion, FallsBackWhereMQTT5IsRefused) {
    Versions versions;
    bool refuses = true;
    FakeBroker broker({[&](Peer& peer) {
        versions.push_back(peer.hello().version);
        if (versions.back() == version_5 && refuses) return peer.send(std::string("\x20\x02\0\x01", 4));
        peer.connack();
        peer.wait_for_end();
    }});
    for (int i = 0; i < 3; ++i) {
        refuses = i < 2;
        Pump pump(mqtt_settings(broker.url()));
        ASSERT_TRUE(pump.up()) << pump.link.reason;
    }
    // Each connection asks again: by the last one, the broker has learnt it.
    EXPECT_EQ(versions, (Versions{version_5, version_3, version_5, version_3, version_5}));
}

// A broker that is restarted in the middle of the very first CONNECT.
TEST(MqttVersion, AHangUpIsNoRefusal) {
    for (const std::size_t hang_ups : {1, 2, 3}) {
        Versioned broker(
            [&](unsigned version, std::size_t number) { return number > hang_ups && version == version_5; });
        const Link link = broker.connect(hang_ups);
        EXPECT_EQ(link.state, LinkState::down);
        EXPECT_EQ(link.remedy, Remedy::retry);
        EXPECT_EQ(link.reason, hung_up + (hang_ups < 3 ? if_not_5 : ""));
        EXPECT_TRUE(has_id(broker.deliver())) << hang_ups;
        EXPECT_EQ(broker.asked().back(), version_5);
    }
}

TEST(MqttVersion, ABrokerThatHangsUpOnMQTT5AloneIsToldAndServed) {
    Versioned broker([](unsigned version, std::size_t) { return version == version_3; });
    EXPECT_EQ(broker.connect(2).reason, hung_up + if_not_5);
    const Link told = broker.connect(1);
    EXPECT_EQ(told.state, LinkState::down);
    EXPECT_EQ(told.remedy, Remedy::retry);
    EXPECT_NE(told.reason.find("the broker hangs up on MQTT 5 and answers MQTT 3.1.1"), std::string::npos)
        << told.reason;
    EXPECT_NE(told.reason.find("the broker option version"), std::string::npos) << told.reason;
    EXPECT_FALSE(has_id(broker.deliver()));
    EXPECT_EQ(broker.asked(), (Versions{5, 5, 5, 4, 5, 4}));
    broker.connect(1);  // which is asked for MQTT 5 again, with all that it takes to give it up
    EXPECT_EQ(broker.asked(), (Versions{5, 5, 5, 4, 5, 4, 5}));
}

// It came back between two connects: what answers 3.1.1 then takes MQTT 5 as well.
TEST(MqttVersion, ABrokerThatIsBackAtTheProbeIsJoinedInMQTT5) {
    Versioned broker([](unsigned, std::size_t number) { return number > 3; });
    const Link told = broker.connect(3);
    EXPECT_NE(told.reason.find("answers MQTT 3.1.1"), std::string::npos) << told.reason;
    EXPECT_TRUE(has_id(broker.deliver()));
    EXPECT_EQ(broker.asked(), (Versions{5, 5, 5, 4, 5}));
}

// A proxy whose upstream is away.
TEST(MqttVersion, WhereNobodyAnswersTheProbeMustBeEarnedAgain) {
    Versioned broker([](unsigned, std::size_t number) { return number > 8; });
    broker.connect(6);
    EXPECT_EQ(broker.asked(), (Versions{5, 5, 5, 4, 5, 5, 5, 4}));
    EXPECT_TRUE(has_id(broker.deliver()));
}

TEST(MqttVersion, HangUpsCountOnlyInARow) {
    Versions versions;
    const FakeBroker::Script hang_up = [&](Peer& peer) { versions.push_back(peer.hello().version); };
    const FakeBroker::Script refuse = [&](Peer& peer) {
        versions.push_back(peer.hello().version);
        peer.connack(0x88);
    };
    FakeBroker broker({hang_up, hang_up, refuse, hang_up, hang_up, hang_up});
    for (int i = 0; i < 5; ++i) {
        Pump pump(mqtt_settings(broker.url()));
        ASSERT_TRUE(pump.down());
    }
    EXPECT_EQ(versions, (Versions{5, 5, 5, 5, 5}));
}

// The probe's refusal is told again and again, whatever the hang-ups before it.
TEST(MqttVersion, AProbeThatIsRefusedSaysWhy) {
    Versions versions;
    FakeBroker broker({[&](Peer& peer) {
        versions.push_back(peer.hello().version);
        if (versions.back() == version_3) peer.connack(4);
    }});
    for (int i = 0; i < 5; ++i) {
        Pump pump(mqtt_settings(broker.url()));
        ASSERT_TRUE(pump.down());
        if (i < 2) continue;
        EXPECT_EQ(pump.link.reason, "login refused: bad user name or password (0x86)");
        EXPECT_EQ(pump.link.remedy, Remedy::fix_settings);
    }
    EXPECT_EQ(versions, (Versions{5, 5, 5, 4, 5, 4, 5, 4}));
}

TEST(MqttVersion, FallsBackOnlyWhereMQTT5HasNeverWorked) {
    Versioned broker([](unsigned version, std::size_t number) { return number == 1 || version == version_3; });
    EXPECT_TRUE(has_id(broker.deliver()));
    const Link link = broker.connect(6);
    EXPECT_EQ(link.remedy, Remedy::retry);
    EXPECT_EQ(link.reason, "connection lost before the broker answered the login: the server closed the connection");
    EXPECT_EQ(broker.asked(), Versions(7, version_5));
}

TEST(MqttVersion, ABlackHoleHasADeadlineAndIsNeverJoined) {
    Versions versions;
    FakeBroker broker({[&](Peer& peer) {
        versions.push_back(peer.hello().version);
        peer.wait_for_end();
    }});
    for (int i = 0; i < 5; ++i) {
        Pump pump(mqtt_settings(broker.url(), R"({"connect_timeout":0.2})"));
        ASSERT_TRUE(pump.down());
        EXPECT_EQ(pump.link.remedy, Remedy::retry);
        EXPECT_EQ(pump.link.reason, "the broker did not answer the login within 200 ms" + if_not_5);
    }
    Pump old(mqtt_settings(broker.url(), R"({"connect_timeout":0.2,"version":"3.1.1"})"));
    ASSERT_TRUE(old.down());
    EXPECT_EQ(old.link.reason, "the broker did not answer the login within 200 ms");
    // No other version is tried: a frozen broker would lose the events' ids.
    EXPECT_EQ(versions, (Versions{5, 5, 5, 5, 5, 4}));
}

// A broker that is told to be spoken to in 5 alone says no; nobody falls back.
TEST(MqttVersion, ARefusalOf5SaysWhatToSet) {
    FakeBroker broker({[](Peer& peer) {
        peer.hello();
        peer.connack(0x84);
        peer.wait_for_end();
    }});
    Pump pump(mqtt_settings(broker.url(), R"({"version":"5"})"));
    ASSERT_TRUE(pump.down());
    EXPECT_EQ(pump.link.reason,
              "login refused: unsupported protocol version (0x84); set \"version\": \"3.1.1\" in the "
              "broker's options");
}
