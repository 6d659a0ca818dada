// What it is: one event as the frames of a basic.publish.
// Who calls it: the AMQP driver, when it is offered an event.
// Never: writes half a message, or one that would make the broker close the connection.
#pragma once

#include <string>
#include <string_view>

#include "broker/amqp/amqp_headers.hpp"
#include "broker/amqp/amqp_options.hpp"
#include "broker/amqp/frame.hpp"
#include "broker/amqp/lane.hpp"
#include "broker/driver.hpp"

namespace eventbus::broker::amqp {

class MessageWriter {
 public:
    // source: for app_id, cut to what a short string takes.
    explicit MessageWriter(std::string_view source);

    // Appends the message's frames. Returns why it can't be sent, with nothing appended; empty when it was.
    std::string write(FrameWriter& frames, std::string& out, std::uint16_t channel, const Outgoing& outgoing);

 private:
    std::string source_;
    Headers headers_;
};

// The exchange that a destination publishes to: queues are reached through the default exchange.
inline bool is_queue(const Outgoing& outgoing) {
    return outgoing.addressing->kind == "queue";
}
inline Address address_of(const Outgoing& outgoing) {
    if (is_queue(outgoing)) return {{}, outgoing.name, false, !outgoing.addressing->varies};
    return {outgoing.name, outgoing.routing_key, outgoing.addressing->varies};
}

}  // namespace eventbus::broker::amqp
