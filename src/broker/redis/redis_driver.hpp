// What it is: the Redis driver: one connection, commands pipelined, replies matched in order.
// Who calls it: redis_module.cpp makes it, delivery drives it.
// Never: sends anything while nothing is offered, or shows a password.
#pragma once

#include <array>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "broker/driver.hpp"
#include "broker/redis/redis_inquiry.hpp"
#include "broker/redis/replies.hpp"
#include "broker/redis/stream_history.hpp"
#include "broker/stream/stream.hpp"

namespace eventbus::broker::redis {

// The number in the URL's path or its "db" parameter; 0 without either. Throws BadInput.
unsigned database_number(const Url& url);

// What the server has yet to answer, in the order of the commands.
class OpenCommands {
 public:
    enum class What : std::uint8_t { stream, list, channel, tail, fence, time };  // the first three are messages
    struct Open {
        std::uint64_t ticket = 0;
        std::size_t bytes = 0;  // of its command
        What what = What::channel;
        Tail* tail = nullptr;
        bool is_message() const { return what <= What::channel; }
    };
    bool empty() const { return count_ == 0; }
    std::size_t size() const { return count_; }
    const Open& front() const { return slots_[first_]; }
    void push(Open open) {
        if (count_ == slots_.size()) grow();
        slots_[(first_ + count_++) & (slots_.size() - 1)] = open;
    }
    void pop() {
        first_ = (first_ + 1) & (slots_.size() - 1);
        --count_;
    }

 private:
    void grow();
    std::vector<Open> slots_;  // their number is a power of two
    std::size_t first_ = 0;
    std::size_t count_ = 0;
};

class RedisDriver final : public Driver {
 public:
    RedisDriver(const BrokerSettings& settings, unsigned attempt, TimePoint now);

    Interest interest() const override;
    TimePoint wake_at() const override;
    Link drive(Ready ready, TimePoint now) override;
    bool offer(const Outgoing& outgoing) override;
    std::size_t settle(std::span<Settlement> out) override;
    void look_at(const Target& target) override;
    Look look() const override;

 private:
    enum class Step : std::uint8_t { auth, select, ready, role, set_name };

    void greet(const BrokerSettings& settings);
    bool move_bytes(Ready ready);
    void closed();
    void read_replies();
    void take(const Reply& reply);
    void take_login(const Reply& reply);
    void login_refused(Step step, const std::string& words);
    void take_answer(const Reply& reply);
    void take_past(const OpenCommands::Open& asked, const Reply& reply);
    bool is_past_known(const Outgoing& outgoing);
    void ask_past(const Outgoing& outgoing);
    void ask_fence();
    void await(OpenCommands::What what, Tail* tail);
    void deliver(const Outgoing& outgoing);
    void release_held();
    void watch(bool moved, TimePoint now);
    void go_down(Remedy remedy, std::string reason);

    Host host_;
    std::string scheme_;
    bool has_other_hosts_;
    Stream stream_;
    ReplyReader replies_;
    Link link_;
    std::vector<Step> login_;  // steps not yet answered
    std::size_t login_answered_ = 0;

    std::string source_;
    std::size_t window_;
    std::chrono::seconds heartbeat_;
    std::chrono::milliseconds connect_timeout_;
    TimePoint connect_deadline_;
    TimePoint now_;                 // of the last drive()
    TimePoint used_at_;             // something was sent or answered
    TimePoint quiet_since_;         // since when the server owes us a byte
    bool watching_ = false;         // tickets were open at the end of the last drive()
    bool socket_was_full_ = false;  // then

    OpenCommands open_;
    std::size_t open_messages_ = 0;  // the others ask about the past
    std::size_t open_bytes_ = 0;
    StreamHistory past_;
    std::deque<Outgoing> held_;  // accepted, not sent: the first one's past is being asked for
    std::size_t held_bytes_ = 0;
    std::vector<Settlement> settled_;
    std::size_t settled_taken_ = 0;
    std::optional<Inquiry> inquiry_;  // of a driver that only looks
    std::string who_;                 // of such a one: as whom, and to which database
    bool was_up_ = false;
};

}  // namespace eventbus::broker::redis
