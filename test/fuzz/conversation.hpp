// What it is: a conversation between a driver and a broker that means harm, as an input tells it step by step.
// Who calls it: the drivers' fuzzers.
// Never: lets the driver hold more than it may, settle a ticket twice, keep one at its end, or tell the password.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "../unit/module_support.hpp"
#include "broker/driver.hpp"
#include "input.hpp"
#include "network.hpp"

namespace eventbus::fuzz {

using namespace eventbus::broker;

inline constexpr std::string_view password = "hunter2/hunter2-secret";

// What differs between protocols.
struct Protocol {
    std::function<std::string(unsigned flags)> login;                        // the broker's side of a good one
    std::function<std::string(unsigned kind, std::string_view body)> frame;  // in its right lengths
    std::function<std::string(std::string_view words)> complaint;            // words that end up in a reason
    std::function<Addressing(Input&)> address;
    std::string kind;                // of a destination to look at
    std::string options;             // of a route to it
    std::size_t most_sent_back = 0;  // what may wait for a broker that does not read, beside messages
};

class Conversation {
 public:
    Conversation(BrokerSettings settings, const Protocol& protocol, Input input) : protocol_(protocol), input_(input) {
        network = {};
        const unsigned flags = input_.byte();
        only_looks_ = (flags & 4) != 0;
        if (only_looks_) settings.look_ms = 10'000;
        driver_ = eventbus_driver_module()->connect(settings, 0, now_);
        if (only_looks_ && (flags & 8) != 0) {
            addressings_.push_back(
                test::addressing_of(protocol_.kind, (flags & 16) != 0 ? protocol_.options : "{}", (flags & 64) != 0));
            driver_->look_at({addressings_.back(), "one"});
        }
        drive();
        if ((flags & 1) != 0) say(protocol_.login(flags));
        while (!input_.empty() && link_.state != LinkState::down) step();
        network.ended = true;
        for (int i = 0; i < 3 && link_.state != LinkState::down; ++i) drive();
        if (link_.state == LinkState::down) check(open_.empty(), "a ticket is open behind the end");
        driver_.reset();
    }

 private:
    void step() {
        constexpr std::size_t most_repeated = 2 << 20;  // enough to step over each bound, and no waste of time
        switch (input_.byte() % 9) {
            case 0:
                return say(std::string(input_.piece()));
            case 1: {
                const unsigned kind = input_.byte();
                return say(protocol_.frame(kind, input_.piece()));
            }
            case 2: {  // the same for ever
                const std::size_t times = std::size_t{1} << input_.byte() % 16;
                std::string all;
                for (std::size_t i = 0; i < times && repeated_ + all.size() + last_.size() < most_repeated; ++i)
                    all += last_;
                repeated_ += all.size();
                const std::string last = last_;
                say(std::move(all));
                last_ = last;
                return;
            }
            case 3:
                return offer();
            case 4:
                now_ += std::chrono::milliseconds(250) * input_.byte();
                return drive();
            case 5:
                network.takes = !network.takes;
                return drive();
            case 6:
                network.ended = true;
                return drive();
            case 7: {  // what the driver has said, back to it
                const auto& said = network.from_driver;
                const std::size_t most = std::min<std::size_t>(said.size(), input_.byte());
                return say(protocol_.complaint(std::string_view(said).substr(said.size() - most)));
            }
            default: {
                const std::string words(input_.piece());
                return say(protocol_.complaint(words + std::string(password) + words));
            }
        }
    }

    void say(std::string bytes) {
        if (network.ended) return;
        last_ = bytes;
        network.to_driver += bytes;
        do drive();
        while (!network.to_driver.empty() && link_.state != LinkState::down);
    }

    void offer() {
        auto& event = events_.emplace_back();
        event.id = EventId::of_log(static_cast<std::int64_t>(events_.size()));
        event.published_at = 1'795'150'380'123'456;
        event.topic = "shop.order";
        event.content_type = "text/plain";
        const auto& addressing = addressings_.emplace_back(protocol_.address(input_));
        const unsigned size = input_.byte();
        event.payload = payloads_.emplace_back(std::size_t{size} * size, 'x');
        if (size % 2 == 1) event.key = "key";
        const Outgoing outgoing{.ticket = events_.size(),
                                .lane = size % 4,
                                .event = &event,
                                .addressing = &addressing,
                                .name = size % 3 == 0 ? "one" : "two",
                                .routing_key = size % 5 == 0 ? "a" : "b"};
        if (driver_->offer(outgoing)) {
            check(!only_looks_, "a driver that only looks takes a message");
            check(link_.state == LinkState::up, "a ticket was taken without a link");
            open_.insert(outgoing.ticket);
            messages_ += event.payload.size() + 1000;
        }
        drive();
    }

    void drive() {
        now_ += std::chrono::milliseconds(1);
        link_ = driver_->drive({.read = true, .write = true}, now_);
        told(link_.reason);
        Settlement room[16];
        while (const std::size_t count = driver_->settle(room)) {
            for (std::size_t i = 0; i < count; ++i) {
                check(open_.erase(room[i].ticket) == 1, "a ticket settles that is not open");
                told(room[i].reason);
            }
        }
        static_cast<void>(driver_->wake_at());
        looked(driver_->look());
        check(network.unsent <= messages_ + protocol_.most_sent_back, "too much waits for a broker that does not read");
        check(network.unread <= std::size_t{2} << 20, "too much is held of what the broker sent");
        if (network.from_driver.size() > 1 << 16) network.from_driver.erase(0, network.from_driver.size() - (1 << 16));
    }

    void looked(const Look& look) {
        constexpr std::size_t most_steps = 8;
        check(look.findings.size() <= (only_looks_ ? most_steps : 0), "there are too many findings");
        check(!look.done || link_.state != LinkState::down, "a look is done whose link is down");
        for (const Finding& finding : look.findings) {
            check(!finding.detail.empty(), "a finding says nothing");
            told(finding.detail);
            told(finding.hint);
        }
    }

    void told(const std::string& reason) {
        check(reason.find(password) == std::string::npos, "the password is told", reason);
        check(reason.size() < 4096, "a reason is long", reason);
        for (const char c : reason)
            check(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, "a reason has a control character", reason);
    }

    const Protocol& protocol_;
    Input input_;
    bool only_looks_ = false;
    std::unique_ptr<Driver> driver_;
    TimePoint now_ = TimePoint() + std::chrono::hours(24);
    Link link_;
    std::string last_;
    std::size_t repeated_ = 0;
    std::size_t messages_ = 0;  // bytes of what was taken, with room for what is around it
    std::set<std::uint64_t> open_;
    std::deque<Event> events_;
    std::deque<Addressing> addressings_;
    std::deque<std::string> payloads_;
};

inline BrokerSettings settings_of(const std::string& url, std::uint16_t port, const std::string& options = "{}") {
    BrokerSettings settings;
    settings.name = "fuzz";
    settings.source = "postgresql://fuzz/db";
    settings.url = parse_url(url, port);
    settings.password = settings.url.has_user ? password : std::string_view();
    test::take_options(settings, options);
    return settings;
}

}  // namespace eventbus::fuzz
