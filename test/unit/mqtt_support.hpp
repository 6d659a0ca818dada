// What it is: what the MQTT driver's tests share: a pump around one driver, and the broker's end of a connection.
// Who calls it: mqtt_*_test.cpp.
// Never: uses the driver's own code to take its packets apart.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "broker/mqtt/mqtt_options.hpp"
#include "core/bad_input.hpp"
#include "module_support.hpp"
#include "sample_event.hpp"
#include "stream_support.hpp"

namespace eventbus::test {

using namespace eventbus::broker;
using namespace std::chrono_literals;

// Each test has a name of its own: what worked for one client id is remembered within a process.
inline BrokerSettings mqtt_settings(const std::string& url, const std::string& options = "{}") {
    BrokerSettings settings;
    settings.name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    settings.url = parse_url(url, 1883);
    settings.source = "postgresql://unit/test";
    settings.password = settings.url.password;
    take_options(settings, options);
    return settings;
}

inline std::string route_options(int qos, bool retain) {
    return "{\"qos\":" + std::to_string(qos) + (retain ? ",\"retain\":true}" : "}");
}
inline Addressing to_topic(int qos = 1, bool retain = false) {
    return addressing_of("topic", route_options(qos, retain));
}

// A property of MQTT 5 whose value is an integer of so many bytes.
inline std::string property(int id, unsigned value, int bytes) {
    std::string out(1, static_cast<char>(id));
    for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift);
    return out;
}

// One driver, driven by poll(), with what it borrows.
class Pump {
 public:
    explicit Pump(const BrokerSettings& settings, unsigned attempt = 0) {
        driver_ = eventbus_driver_module()->connect(settings, attempt, Clock::now());
    }

    void step(std::chrono::milliseconds most = 20ms) {
        Ready ready;
        const Interest interest = driver_->interest();
        const auto wake = driver_->wake_at();
        if (wake <= Clock::now())
            most = 0ms;
        else if (wake - Clock::now() < most)
            most = std::chrono::ceil<std::chrono::milliseconds>(wake - Clock::now());
        if (interest.fd >= 0) ready = wait_for(interest, most);
        link = driver_->drive(ready, Clock::now());
        Settlement some[64];
        while (const std::size_t count = driver_->settle(some))
            for (std::size_t i = 0; i < count; ++i) {
                EXPECT_TRUE(settled.emplace(some[i].ticket, some[i]).second) << "settled twice";
                order.push_back(some[i].ticket);
            }
    }
    bool until(const std::function<bool()>& met) {
        const auto end = Clock::now() + 30s;
        bool done = met();
        for (; !done && Clock::now() < end; done = met()) step();
        return done;
    }
    bool up() {
        return until([&] { return link.state != LinkState::connecting; }) && link.state == LinkState::up;
    }
    bool down() {
        return until([&] { return link.state == LinkState::down; });
    }
    bool settles(std::size_t count) {
        return until([&] { return settled.size() >= count; });
    }
    bool offer(std::uint64_t ticket, const Event& event, const std::string& name = "t", int qos = 1,
               bool retain = false) {
        return driver_->offer({ticket,
                               7,
                               &events_.emplace_back(event),
                               &addressings_.emplace_back(to_topic(qos, retain)),
                               names_.emplace_back(name),
                               {}});
    }
    // As soon as the driver takes it.
    bool offers(std::uint64_t ticket, const Event& event, const std::string& name = "t", int qos = 1) {
        return until([&] { return link.state == LinkState::down || offer(ticket, event, name, qos); });
    }
    void destroy() { driver_.reset(); }
    Driver& driver() { return *driver_; }

    Link link;
    std::map<std::uint64_t, Settlement> settled;  // by ticket
    std::vector<std::uint64_t> order;             // tickets as they settled

 private:
    std::unique_ptr<Driver> driver_;
    std::deque<Event> events_;
    std::deque<Addressing> addressings_;
    std::deque<std::string> names_;
};

inline void expect_settled(const Pump& pump, std::uint64_t ticket, Verdict verdict, Remedy remedy = Remedy::none,
                           const std::string& part = "") {
    ASSERT_TRUE(pump.settled.contains(ticket)) << "ticket " << ticket;
    const Settlement& settlement = pump.settled.at(ticket);
    EXPECT_EQ(settlement.verdict, verdict) << settlement.reason;
    EXPECT_EQ(settlement.remedy, remedy) << settlement.reason;
    EXPECT_NE(settlement.reason.find(part), std::string::npos) << settlement.reason;
}

// Types of packets that answer.
inline constexpr unsigned puback = 4;
inline constexpr unsigned pubrec = 5;
inline constexpr unsigned pubcomp = 7;
inline constexpr unsigned clean_start = 2;  // of CONNECT's flags

// Bytes, taken from the front.
struct Bytes {
    std::string rest;

    std::string take(std::size_t count) {
        if (count > rest.size()) throw std::runtime_error("a packet of the driver ends too early");
        std::string taken = rest.substr(0, count);
        rest.erase(0, count);
        return taken;
    }
    unsigned number(std::size_t count) {
        unsigned value = 0;
        for (const char c : take(count)) value = value << 8 | static_cast<unsigned char>(c);
        return value;
    }
    std::string string() { return take(number(2)); }
    std::size_t variable() {
        std::size_t value = 0;
        for (int shift = 0;; shift += 7) {
            const unsigned byte = number(1);
            value |= static_cast<std::size_t>(byte & 0x7f) << shift;
            if (byte < 0x80) return value;
        }
    }
};

using Pairs = std::vector<std::pair<std::string, std::string>>;

// Properties that publishers have; numbers as text, user properties with their names.
inline Pairs properties_of(Bytes& packet) {
    Bytes list{packet.take(packet.variable())};
    Pairs found;
    while (!list.rest.empty()) {
        const unsigned id = list.number(1);
        if (id == 0x26) {
            std::string name = list.string();
            found.emplace_back(name, list.string());
        } else if (id == 0x01) {
            found.emplace_back("format", std::to_string(list.number(1)));
        } else if (id == 0x02 || id == 0x11) {
            found.emplace_back(id == 0x02 ? "expiry" : "session expiry", std::to_string(list.number(4)));
        } else if (id == 0x03 || id == 0x08 || id == 0x09) {
            const char* names[] = {"content type", "", "", "", "", "response topic", "correlation data"};
            found.emplace_back(names[id - 3], list.string());
        } else {
            throw std::runtime_error("unexpected property " + std::to_string(id));
        }
    }
    return found;
}

struct Hello {
    unsigned version = 0;
    unsigned flags = 0;
    unsigned keep_alive = 0;
    Pairs properties;
    std::string client_id;
    std::string will_topic, will_payload;
    std::string user, password;
};

struct Published {
    bool again = false;
    unsigned qos = 0;
    bool retain = false;
    std::string topic;
    unsigned id = 0;
    Pairs properties;
    std::string payload;
};

inline Published published_of(unsigned flags, std::string body, bool v5 = true) {
    Published got;
    Bytes bytes{std::move(body)};
    got.again = (flags & 8) != 0;
    got.qos = flags >> 1 & 3;
    got.retain = (flags & 1) != 0;
    got.topic = bytes.string();
    if (got.qos > 0) got.id = bytes.number(2);
    if (v5) got.properties = properties_of(bytes);
    got.payload = bytes.rest;
    return got;
}

// The broker's end of one connection. What does not come throws, and the connection ends.
class Peer {
 public:
    explicit Peer(Socket& socket) : socket_(socket) {}

    void send(const std::string& bytes) {
        if (!socket_.send(bytes)) throw std::runtime_error("the driver is gone");
    }
    // Type and flags in `first`; the body.
    std::string packet(unsigned& first) {
        for (;;) {
            std::size_t length = 0, at = 1;
            bool known = false;
            for (int shift = 0; at < inbox_.size(); shift += 7) {
                const auto byte = static_cast<unsigned char>(inbox_[at++]);
                length |= static_cast<std::size_t>(byte & 0x7f) << shift;
                known = byte < 0x80;
                if (known) break;
            }
            if (known && inbox_.size() >= at + length) {
                first = static_cast<unsigned char>(inbox_[0]);
                std::string body = inbox_.substr(at, length);
                inbox_.erase(0, at + length);
                return body;
            }
            const std::string more = socket_.receive();
            if (more.empty()) throw std::runtime_error("the driver has closed the connection");
            inbox_ += more;
        }
    }
    Hello hello() {
        unsigned first = 0;
        Bytes bytes{packet(first)};
        if (first != 0x10 || bytes.string() != "MQTT") throw std::runtime_error("no CONNECT");
        Hello got;
        got.version = bytes.number(1);
        got.flags = bytes.number(1);
        got.keep_alive = bytes.number(2);
        v5_ = got.version == 5;
        if (v5_) got.properties = properties_of(bytes);
        got.client_id = bytes.string();
        if ((got.flags & 4) != 0) {
            if (v5_) properties_of(bytes);
            got.will_topic = bytes.string();
            got.will_payload = bytes.string();
        }
        if ((got.flags & 0x80) != 0) got.user = bytes.string();
        if ((got.flags & 0x40) != 0) got.password = bytes.string();
        return got;
    }
    // properties: encoded, without their length.
    void connack(unsigned code = 0, bool session_present = false, const std::string& properties = "") {
        std::string body{static_cast<char>(session_present ? 1 : 0), static_cast<char>(code)};
        if (v5_) body += static_cast<char>(properties.size()) + properties;
        send(std::string(1, '\x20') + static_cast<char>(body.size()) + body);
    }
    Hello login(const std::string& properties = "") {
        Hello got = hello();
        connack(0, false, properties);
        return got;
    }
    Published published() {
        unsigned first = 0;
        std::string body = packet(first);
        if (first >> 4 != 3) throw std::runtime_error("no PUBLISH but " + std::to_string(first));
        return published_of(first & 15, std::move(body), v5_);
    }
    // PUBACK 4, PUBREC 5, PUBCOMP 7
    void answer(unsigned type, unsigned id, unsigned code = 0, const std::string& reason = "") {
        std::string body{static_cast<char>(id >> 8), static_cast<char>(id)};
        if (code != 0) body += static_cast<char>(code);
        if (!reason.empty()) {
            const std::string text = std::string(1, '\x1f') + '\0' + static_cast<char>(reason.size()) + reason;
            body += static_cast<char>(text.size()) + text;
        }
        send(std::string(1, static_cast<char>(type << 4)) + static_cast<char>(body.size()) + body);
    }
    unsigned release() {  // the id of a PUBREL
        unsigned first = 0;
        Bytes bytes{packet(first)};
        if (first != 0x62) throw std::runtime_error("no PUBREL but " + std::to_string(first));
        return bytes.number(2);
    }
    void disconnect(unsigned code) { send({'\xe0', '\x01', static_cast<char>(code)}); }
    // Reads until the driver goes; the last packet's first byte.
    unsigned wait_for_end() {
        unsigned first = 0;
        try {
            for (;;) packet(first);
        } catch (const std::runtime_error&) {
        }
        return first;
    }

 private:
    Socket& socket_;
    std::string inbox_;
    bool v5_ = true;
};

// A broker that plays a script a connection; the last one for all that follow.
class FakeBroker {
 public:
    using Script = std::function<void(Peer&)>;
    explicit FakeBroker(std::vector<Script> scripts)
        : server_([this, scripts = std::move(scripts)](Socket& socket) {
              const auto& script = scripts[std::min<std::size_t>(connections_++, scripts.size() - 1)];
              Peer peer(socket);
              try {
                  script(peer);
              } catch (const std::exception&) {  // the driver is gone, or the test fails by what it does not get
              }
          }) {}
    std::string url() const { return "mqtt://" + server_.host().shown(); }
    std::size_t connections() const { return connections_; }

 private:
    std::atomic<std::size_t> connections_{0};
    Server server_;
};

}  // namespace eventbus::test
