// What it is: addresses of one route for which the broker has closed a channel, until one of their messages is taken.
// Who calls it: the AMQP driver and its lanes.
// Never: grows without end.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_set>

namespace eventbus::broker::amqp {

// Where a message went. The names are borrowed until its ticket settles.
struct Address {
    std::string_view exchange;
    std::string_view routing_key;
    bool own_exchange = false;  // the exchange's name is made of the event
    bool named_queue = false;   // all of the route goes to this queue
    bool operator==(const Address& other) const {
        return exchange == other.exchange && routing_key == other.routing_key;
    }
};

class Refused {
 public:
    bool empty() const { return names_.empty(); }
    bool has(const Address& address) const {
        return !empty() && (names_.contains(std::string(address.exchange)) || names_.contains(name_of(address)));
    }
    // whole_exchange: whatever the routing key. Beyond the limit another one is forgotten, and costs its neighbours the
    // channel once more.
    void add(const Address& address, bool whole_exchange) {
        if (names_.size() >= most) names_.erase(names_.begin());
        names_.insert(whole_exchange ? std::string(address.exchange) : name_of(address));
    }
    void taken(const Address& address) {
        if (empty()) return;
        names_.erase(std::string(address.exchange));
        names_.erase(name_of(address));
    }

 private:
    static constexpr std::size_t most = 4096;
    static std::string name_of(const Address& address) {
        return std::string(address.exchange).append(1, '\0').append(address.routing_key);
    }
    std::unordered_set<std::string> names_;
};

}  // namespace eventbus::broker::amqp
