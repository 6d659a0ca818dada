// What it is: the options that only AMQP brokers and routes have.
// Who calls it: amqp_module.cpp reads them, the driver looks them up.
// Never: holds what all protocols have.
#pragma once

#include <cstdint>

#include "broker/driver.hpp"

namespace eventbus::broker::amqp {

struct AmqpOptions {
    std::uint32_t confirm_timeout_s = 60;  // "confirm_timeout": 0 turns it off
};

struct AmqpRoute {
    bool persistent = true;  // "persistent": delivery mode 2
};

inline const AmqpOptions& options_of(const BrokerSettings& settings) {
    return *static_cast<const AmqpOptions*>(settings.own.get());
}
inline const AmqpRoute& route_of(const Addressing& addressing) {
    return *static_cast<const AmqpRoute*>(addressing.own.get());
}

}  // namespace eventbus::broker::amqp
