// What it is: an event's headers as AMQP properties and a header table.
// Who calls it: the AMQP messages, once an event.
// Never: lets a publisher's header replace one of ours, or drops one silently.
#pragma once

#include <deque>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "broker/amqp/codec.hpp"
#include "core/event.hpp"
#include "core/time_text.hpp"

namespace eventbus::broker::amqp {

class Headers {
 public:
    // Sets the header table, correlation_id, reply_to, expiration and priority; they are valid until the next
    // fill() and while the event is. Returns why the headers can't be carried; empty when they can.
    std::string fill(const Event& event, amqp_basic_properties_t& properties);

 private:
    using Json = nlohmann::json;
    std::string add(const std::string& name, const Json& value, amqp_basic_properties_t& properties);
    amqp_field_value_t field(const Json& value);
    std::string_view keep(std::string text) { return texts_.emplace_back(std::move(text)); }

    Json json_;
    std::deque<std::string> texts_;  // what the table points to
    std::deque<std::vector<amqp_field_value_t>> arrays_;
    std::vector<amqp_table_entry_t> entries_;
    char time_[rfc3339_length];
};

}  // namespace eventbus::broker::amqp
