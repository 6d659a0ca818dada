// What it is: what the AMQP tests share: settings, events, and a loop that drives a driver.
// Who calls it: amqp_*_test.cpp.
// Never: waits without a deadline.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "broker/amqp/amqp_options.hpp"
#include "module_support.hpp"
#include "sample_event.hpp"

namespace eventbus::broker::amqp {

using test::event_of;

inline BrokerSettings settings_for(const std::string& url) {
    BrokerSettings settings;
    settings.name = "test";
    settings.source = "postgresql://here/db";
    settings.url = parse_url(url, 5672);
    settings.password = settings.url.password;
    settings.own = std::make_shared<AmqpOptions>();
    return settings;
}

inline std::string url_of(std::uint16_t port, const std::string& rest = "") {
    return "amqp://127.0.0.1:" + std::to_string(port) + rest;
}

// A driver and the loop that a sender would run around it.
class Driven {
 public:
    explicit Driven(const BrokerSettings& settings, unsigned attempt = 0)
        : driver_(eventbus_driver_module()->connect(settings, attempt, Clock::now())) {}

    void step(std::chrono::milliseconds most = std::chrono::milliseconds(20)) {
        const Interest interest = driver_->interest();
        pollfd fd{interest.fd, 0, 0};
        fd.events = static_cast<short>((interest.read ? POLLIN : 0) | (interest.write ? POLLOUT : 0));
        const auto now = Clock::now();
        const auto wake = driver_->wake_at();
        auto wait = most;
        if (wake <= now)
            wait = std::chrono::milliseconds(0);
        else if (wake - now < most)
            wait = std::chrono::ceil<std::chrono::milliseconds>(wake - now);
        ::poll(&fd, 1, static_cast<int>(wait.count()));
        const bool failed = (fd.revents & (POLLERR | POLLHUP)) != 0;
        link =
            driver_->drive({(fd.revents & POLLIN) != 0 || failed, (fd.revents & POLLOUT) != 0 || failed}, Clock::now());
        ++steps;
        Settlement room[64];
        while (const std::size_t count = driver_->settle(room)) {
            for (std::size_t i = 0; i < count; ++i) {
                ++settled[room[i].ticket];
                settlements[room[i].ticket] = room[i];
                order.push_back(room[i].ticket);
            }
        }
    }

    bool until(const std::function<bool()>& done, std::chrono::milliseconds limit = std::chrono::seconds(10)) {
        const auto deadline = Clock::now() + limit;
        while (!done()) {
            if (Clock::now() > deadline) return false;
            step();
        }
        return true;
    }
    bool until_state(LinkState state) {
        return until([&] { return link.state == state; });
    }
    bool until_settled(std::size_t count) {
        return until([&] { return settlements.size() >= count; });
    }

    bool offer(std::uint64_t ticket, const Event& event, const Addressing& addressing, std::string_view name,
               std::string_view routing_key = "", std::uint32_t lane = 1) {
        Outgoing outgoing;
        outgoing.ticket = ticket;
        outgoing.lane = lane;
        outgoing.event = &event;
        outgoing.addressing = &addressing;
        outgoing.name = name;
        outgoing.routing_key = routing_key;
        return driver_->offer(outgoing);
    }

    // The first one of a lane waits for its channel.
    bool offer_soon(std::uint64_t ticket, const Event& event, const Addressing& addressing, std::string_view name,
                    std::string_view routing_key = "", std::uint32_t lane = 1) {
        return until([&] { return offer(ticket, event, addressing, name, routing_key, lane); });
    }

    TimePoint wake_at() const { return driver_->wake_at(); }
    void destroy() { driver_.reset(); }

    Link link;
    std::size_t steps = 0;
    std::map<std::uint64_t, Settlement> settlements;  // by ticket, the last one
    std::map<std::uint64_t, int> settled;             // by ticket, how often
    std::vector<std::uint64_t> order;

 private:
    std::unique_ptr<Driver> driver_;
};

inline const Addressing to_exchange = test::addressing_of("exchange");
inline const Addressing to_queue = test::addressing_of("queue");

inline void expect_down(const Link& link, Remedy remedy, const std::string& part) {
    EXPECT_EQ(link.state, LinkState::down);
    EXPECT_EQ(link.remedy, remedy) << link.reason;
    EXPECT_NE(link.reason.find(part), std::string::npos) << link.reason;
}

inline void expect_settled(const Driven& driven, std::uint64_t ticket, Verdict verdict, Remedy remedy,
                           const std::string& reason_part = "") {
    ASSERT_TRUE(driven.settlements.contains(ticket)) << "ticket " << ticket;
    const Settlement& settlement = driven.settlements.at(ticket);
    EXPECT_EQ(settlement.verdict, verdict) << "ticket " << ticket << ": " << settlement.reason;
    EXPECT_EQ(settlement.remedy, remedy) << "ticket " << ticket << ": " << settlement.reason;
    EXPECT_NE(settlement.reason.find(reason_part), std::string::npos) << settlement.reason;
    EXPECT_EQ(driven.settled.at(ticket), 1) << "ticket " << ticket;
}

}  // namespace eventbus::broker::amqp
