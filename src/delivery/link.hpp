// What it is: the connection to the broker over time: makes drivers, waits between attempts, tells of changes.
// Who calls it: the dispatcher.
// Never: knows routes or tickets.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "delivery/context.hpp"

namespace eventbus::delivery {

class LinkKeeper {
 public:
    LinkKeeper(Connect connect, Context& context);

    void connect_if_due(std::size_t events_waiting);
    // Drives the driver. After `down` settle() is to be drained and lost() called.
    broker::LinkState drive(broker::Ready ready);
    // expected: it is known why, and was told. follows: from a refusal, whose words say more than the link's end.
    void lost(std::size_t events_waiting, bool expected, bool follows);
    const broker::Link& down() const { return down_; }
    void hurry();    // the next attempt at once
    void worked();   // something was delivered, or the link has been up for long; not enough where it is contested
    void is_back();  // what was told as a trouble is over: the link is up, and works or has nothing to do

    // What to wait for; its number is another one for each driver.
    broker::Interest interest() const;
    broker::Driver* driver() const { return driver_.get(); }
    broker::LinkState state() const { return state_; }
    bool is_in_trouble() const { return in_trouble_; }
    // The broker closed an idle connection, and there is nothing to send.
    bool is_resting() const { return resting_; }
    bool is_refused() const { return refused_; }  // until somebody fixes the settings
    TimePoint wake_at() const { return driver_ ? driver_->wake_at() : retry_at_; }
    const std::string& error() const { return error_; }  // empty while up
    const std::string& last_error() const { return last_error_; }
    Moment last_error_at() const { return last_error_at_; }

 private:
    Backoff::Duration wait(Remedy remedy);
    void rest();
    void failed(Remedy remedy, std::string reason, std::size_t events_waiting, bool follows = false);
    void came_up();
    void became_blocked(const std::string& reason);

    Connect connect_;
    Context& context_;
    std::unique_ptr<broker::Driver> driver_;
    broker::LinkState state_ = broker::LinkState::connecting;
    broker::Link down_;  // what drive() said last, when down
    unsigned attempt_ = 0;
    std::uint64_t made_ = 0;  // drivers
    TimePoint retry_at_{};
    TimePoint up_since_{};
    TimePoint trouble_since_{};
    TimePoint blocked_since_{};
    bool in_trouble_ = false;  // until it works: to be up is not enough
    bool refused_ = false;
    bool contested_ = false;         // another client has put us out: until the link has been up for long
    std::vector<std::string> told_;  // reasons already told during this trouble
    Backoff backoff_;
    Backoff slow_backoff_;
    Backoff rest_backoff_;
    bool resting_ = false;  // no trouble: the next connection is made when something is to be sent, or after a while
    std::string error_;
    std::string last_error_;
    Moment last_error_at_;
};

}  // namespace eventbus::delivery
