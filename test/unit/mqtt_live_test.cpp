// What it is: tests of the MQTT driver against a private mosquitto, read by mosquitto_sub.
// Who calls it: make -C test/unit mqtt.
// Never: touches a broker that it did not start.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "mqtt_support.hpp"

using namespace eventbus;
using namespace eventbus::test;

namespace {

std::string contents(const std::string& file) {
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    return text.str();
}

// A mosquitto that listens for TCP, WebSockets and TLS; "app" may enter with "pw", and not write below "secret/".
class MqttLive : public ::testing::Test {
 protected:
    MqttLive() {
        make_certificates(dir_);
        run("mosquitto_passwd -b -c " + dir_.file("passwords") + " app pw");
        run("chmod 644 " + dir_.file("passwords"));
        std::ofstream(dir_.file("acl")) << "user app\ntopic readwrite open/#\n";
        // Under load somebody else may be faster to take a port than mosquitto is: it ends then.
        for (int attempt = 0; attempt < 5 && !start(); ++attempt) {
        }
        EXPECT_FALSE(broker_->is_gone()) << "mosquitto did not start; its own words stand above";
    }
    // False: it could not begin, or another one answers at its port.
    bool start() {
        port_ = free_port();
        ws_port_ = free_port();
        tls_port_ = free_port();
        std::ofstream conf(dir_.file("conf"));
        conf << "user root\nallow_anonymous false\npassword_file " << dir_.file("passwords") << "\nacl_file "
             << dir_.file("acl") << "\nmessage_size_limit 100000\nmax_packet_size 200000\nmax_inflight_messages 7\n"
             << "listener " << port_ << " 127.0.0.1\nlistener " << ws_port_ << " 127.0.0.1\nprotocol websockets\n"
             << "listener " << tls_port_ << " 127.0.0.1\ncafile " << dir_.file("ca.pem") << "\ncertfile "
             << dir_.file("server.pem") << "\nkeyfile " << dir_.file("server.key") << "\nrequire_certificate true\n";
        conf.close();
        broker_ = std::make_unique<Child>(std::vector<std::string>{"mosquitto", "-c", dir_.file("conf")});
        bool answers = false;
        EXPECT_TRUE(eventually(
            [&] {
                if (broker_->is_gone()) return true;
                Pump pump(settings());
                answers = pump.up();
                return answers;
            },
            120s))
            << "mosquitto runs and does not answer";
        return answers;
    }
    BrokerSettings settings(const std::string& options = "{}") const {
        return mqtt_settings("mqtt://app:pw@127.0.0.1:" + std::to_string(port_), options);
    }
    // The retained messages below a topic, a line each.
    std::string retained(const std::string& below, int count, const std::string& format) const {
        const std::string out = dir_.file("out");
        run("timeout 30 mosquitto_sub -V 5 -h 127.0.0.1 -p " + std::to_string(port_) + " -u app -P pw -q 2 -t '" +
            below + "/#' -C " + std::to_string(count) + " -F '" + format + "' > " + out + "; cp " + out + " " + out +
            "2");
        return contents(out);
    }
    static void deliver(Pump& pump, const std::string& topic) {
        ASSERT_TRUE(pump.up()) << pump.link.reason;
        for (int qos = 0; qos <= 2; ++qos) {
            const auto ticket = static_cast<std::uint64_t>(qos + 1);
            Event event = event_of(40 + qos, "payload");
            event.key = "k";
            ASSERT_TRUE(pump.offer(ticket, event, topic + "/" + std::to_string(qos), qos, true));
        }
        ASSERT_TRUE(pump.settles(3));
        for (std::uint64_t ticket = 1; ticket <= 3; ++ticket) expect_settled(pump, ticket, Verdict::delivered);
    }

    TempDir dir_;
    std::uint16_t port_ = 0, ws_port_ = 0, tls_port_ = 0;
    std::unique_ptr<Child> broker_;
};

}  // namespace

TEST_F(MqttLive, EveryWayAndQoS) {
    Pump plain(settings());
    deliver(plain, "open/plain");
    Pump old(settings(R"({"version":"3.1.1","client_id":"old"})"));
    deliver(old, "open/old");
    BrokerSettings in_websocket =
        mqtt_settings("ws://app:pw@127.0.0.1:" + std::to_string(ws_port_), R"({"client_id":"ws"})");
    Pump websocket(in_websocket);
    deliver(websocket, "open/ws");
    BrokerSettings with_tls =
        mqtt_settings("mqtts://app:pw@localhost:" + std::to_string(tls_port_),
                      R"({"client_id":"tls","ca_file":")" + dir_.file("ca.pem") + R"(","cert_file":")" +
                          dir_.file("client.pem") + R"(","key_file":")" + dir_.file("client.key") + R"("})");
    Pump tls(with_tls);
    deliver(tls, "open/tls");

    const std::string marked =
        "event-id:42 event-topic:shop.order.created event-key:k "
        "event-time:2026-11-20T04:53:00.123456Z event-source:postgresql://unit/test";
    for (const char* way : {"plain", "ws", "tls"}) {
        const std::string got = retained(std::string("open/") + way, 3, "%t %r %p %C %P");
        EXPECT_NE(got.find(std::string("open/") + way + "/2 1 payload application/json " + marked), std::string::npos)
            << got;
        EXPECT_EQ(std::count(got.begin(), got.end(), '\n'), 3) << got;
    }
    EXPECT_NE(retained("open/old", 3, "%t|%p|%P|").find("open/old/1|payload||"), std::string::npos);
}

TEST_F(MqttLive, Refusals) {
    BrokerSettings intruder = settings();
    intruder.password = "wrong";
    Pump refused(intruder);
    ASSERT_TRUE(refused.down());
    EXPECT_EQ(refused.link.remedy, Remedy::fix_settings);
    EXPECT_EQ(refused.link.reason, "login refused: not authorized (0x87)");

    Pump pump(settings());
    ASSERT_TRUE(pump.up());
    const std::string large(150'000, 'x'), huge(250'000, 'x');
    ASSERT_TRUE(pump.offer(1, event_of(1), "secret/1", 1));
    ASSERT_TRUE(pump.offer(2, event_of(2), "secret/2", 2));
    ASSERT_TRUE(pump.offer(3, event_of(3, large), "open/3", 1));
    ASSERT_TRUE(pump.offer(4, event_of(4, huge), "open/4", 1));
    ASSERT_TRUE(pump.offer(5, event_of(5), "open/5", 1));
    ASSERT_TRUE(pump.settles(5));
    expect_settled(pump, 1, Verdict::refused, Remedy::forbidden, "not authorized (0x87)");
    expect_settled(pump, 2, Verdict::refused, Remedy::forbidden, "not authorized (0x87)");
    expect_settled(pump, 3, Verdict::refused, Remedy::park, "packet too large (0x95)");
    expect_settled(pump, 4, Verdict::refused, Remedy::park, "it takes 200000");
    expect_settled(pump, 5, Verdict::delivered);
    EXPECT_EQ(pump.link.state, LinkState::up);
}

TEST_F(MqttLive, OurWordForItAndMosquittos) {
    // The broker takes 7 open messages, whatever we would like; it ends connections that send more.
    Pump pump(settings(R"({"window":1000})"));
    ASSERT_TRUE(pump.up());
    for (std::uint64_t i = 1; i <= 500; ++i)
        ASSERT_TRUE(pump.offers(i, event_of(static_cast<std::int64_t>(i)), "open/many", 2));
    ASSERT_TRUE(pump.settles(500));
    for (std::uint64_t i = 1; i <= 500; ++i) expect_settled(pump, i, Verdict::delivered);
    EXPECT_EQ(pump.link.state, LinkState::up);
}

TEST_F(MqttLive, QoS2IsExactlyOnceAcrossCuts) {
    constexpr std::size_t count = 40;
    const std::string heard = dir_.file("heard");
    Child reader({"sh", "-c",
                  "exec mosquitto_sub -V 5 -h 127.0.0.1 -p " + std::to_string(port_) +
                      " -u app -P pw -q 2 -t open/cut -F %P > " + heard});
    std::set<std::uint64_t> delivered;
    // It has subscribed when it hears something.
    Pump first(settings());
    ASSERT_TRUE(first.up());
    std::uint64_t call = 1000;
    ASSERT_TRUE(first.until([&] {
        if (first.settled.size() == call - 1000) first.offer(++call, event_of(0), "open/cut", 0);
        return !contents(heard).empty();
    }));
    first.destroy();

    int uncertain = 0;
    for (int connection = 0; connection < 100 && delivered.size() < count; ++connection) {
        Pump pump(settings());
        ASSERT_TRUE(pump.up()) << pump.link.reason;
        std::set<std::uint64_t> offered;
        for (std::uint64_t i = 1; i <= count; ++i)
            if (!delivered.contains(i) && pump.offer(i, event_of(static_cast<std::int64_t>(i)), "open/cut", 2))
                offered.insert(i);
        // Cut off with some of it under way; the last connections may finish.
        if (connection < 12) {
            const auto enough = static_cast<std::size_t>(connection % 3);
            pump.until(
                [&] { return pump.settled.size() >= enough || pump.settled.size() + delivered.size() >= count; });
            ASSERT_EQ(shutdown(pump.driver().interest().fd, SHUT_RDWR), 0);
            ASSERT_TRUE(pump.down());
        } else {
            for (std::uint64_t i = 1; i <= count; ++i)
                if (!delivered.contains(i) && !offered.contains(i))
                    pump.offers(i, event_of(static_cast<std::int64_t>(i)), "open/cut", 2);
            pump.until([&] { return pump.settled.size() + delivered.size() >= count; });
        }
        for (const auto& [ticket, settlement] : pump.settled)
            settlement.verdict == Verdict::delivered ? void(delivered.insert(ticket)) : void(++uncertain);
    }
    EXPECT_GE(uncertain, 12);  // the cuts hit messages under way
    EXPECT_EQ(delivered.size(), count);
    const auto times_heard = [&](std::size_t id) {
        const std::string text = contents(heard), mark = "event-id:" + std::to_string(id) + " ";
        std::size_t times = 0;
        for (auto at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) ++times;
        return times;
    };
    EXPECT_TRUE(eventually([&] { return times_heard(count) > 0; }));
    for (std::size_t id = 1; id <= count; ++id) EXPECT_EQ(times_heard(id), 1u) << id;
}
