// What it is: what eventbus.health() says of events that no route took.
// Who calls it: eventbus.health().
// Never: is a problem: nobody may want these events.
#pragma once

#include "health/log_health.hpp"

namespace eventbus::health {

// Between SPI_connect and SPI_finish.
Finding look_at_unrouted();

}  // namespace eventbus::health
