// What it is: what a driver that only looks asks a Redis server: what it is, what a key holds, whether the user may write.
// Who calls it: the Redis driver, where BrokerSettings::look_ms is set.
// Never: sends a command that writes, or that anybody would hear of.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "broker/driver.hpp"
#include "broker/redis/replies.hpp"

namespace eventbus::broker::redis {

class Inquiry {
 public:
    explicit Inquiry(const BrokerSettings& settings) : user_(settings.url.has_user ? settings.url.user : "default") {}

    void look_at(const Target& target) { target_ = target; }
    void ask(std::string& outbox);
    bool take(const Reply& reply);  // false: a reply to nothing
    bool done() const { return asked_.empty(); }
    void tell(Look& look) const;

 private:
    enum class Question : std::uint8_t { server, replication, memory, type, subscribers, right };

    bool is_channel() const { return target_.addressing.kind == "channel" || target_.addressing.kind == "topic"; }
    std::string_view command() const;
    std::string named() const;
    void take_info(Question question, const Reply& reply);
    Finding of_type(const Reply& reply) const;
    Finding of_subscribers(const Reply& reply) const;
    Finding of_right(const Reply& reply) const;

    const std::string user_;
    Target target_;
    std::deque<Question> asked_;
    std::string product_;
    std::string refused_;  // INFO was, in the server's words
    std::string more_;     // mode, role, memory
    bool is_replica_ = false;
    bool is_cluster_ = false;
    bool evicts_ = false;
    std::optional<Finding> destination_;
    std::optional<Finding> permission_;
};

}  // namespace eventbus::broker::redis
