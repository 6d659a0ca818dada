// What it is: a look at a broker, and at a destination there, step by step: what can be reached, who is let in, what is there.
// Who calls it: eventbus.test_broker and eventbus.test_route, which wait for it.
// Never: sends a message, disturbs a sender's connection, waits, or takes longer than it was given.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "broker/driver.hpp"
#include "core/bad_input.hpp"

namespace eventbus::broker {

class Inspection {
 public:
    // Of the URL's hosts one after the other, until one lets us in. target: its name is empty where there is none.
    void begin(const BrokerSettings& settings, const Module& module, Target target, std::chrono::milliseconds most,
               TimePoint now);
    // There is nothing to connect to: the settings cannot be used.
    void refuse(const BadInput& bad);

    // What to wait for, until when: drive() is due then at the latest.
    struct Wait {
        bool done = false;
        Interest interest;
        std::chrono::milliseconds most{0};
    };
    Wait drive(Ready ready, TimePoint now);

    // All steps, in order; the last one may be the one that failed.
    const std::vector<Finding>& findings() const { return findings_; }

 private:
    std::size_t hosts() const { return std::max<std::size_t>(settings_.url.hosts.size(), 1); }
    void go_on(Ready ready, TimePoint now);
    void connect(TimePoint now);
    void next_host(TimePoint now);
    void take(Look look);
    void failed(const char* step, Remedy remedy, std::string reason);

    BrokerSettings settings_;
    const Module* module_ = nullptr;
    Target target_;
    TimePoint deadline_{};
    TimePoint host_deadline_{};
    unsigned host_ = 0;
    std::unique_ptr<Driver> driver_;
    std::vector<Finding> findings_;
    bool done_ = false;
};

}  // namespace eventbus::broker
