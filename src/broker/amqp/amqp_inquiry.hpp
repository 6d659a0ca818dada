// What it is: what a driver that only looks asks an AMQP broker: what it is, and whether an exchange or a queue is there.
// Who calls it: the AMQP driver, where BrokerSettings::look_ms is set.
// Never: declares, publishes or binds anything: all declares are passive.
#pragma once

#include <cstdint>
#include <string>

#include "broker/amqp/frame.hpp"
#include "broker/amqp/login.hpp"
#include "broker/driver.hpp"

namespace eventbus::broker::amqp {

class Inquiry {
 public:
    static constexpr std::uint16_t channel = 1;

    void look_at(const Target& target) { target_ = target; }
    void met(std::string_view server_properties);  // at the login
    void ask(FrameWriter& frames, std::string& out);
    // A frame of the channel. True: the broker has closed it, and waits for its close-ok.
    bool take(const Frame& frame);
    bool done() const { return !asked_ || answered_; }
    void tell(Look& look, const Limits& limits) const;

 private:
    bool is_queue() const { return target_.addressing.kind == "queue"; }
    std::string named() const;
    void close_told(unsigned code, std::string_view text);

    Target target_;
    std::string product_;
    bool asked_ = false;
    bool answered_ = false;
    Finding destination_;
};

}  // namespace eventbus::broker::amqp
