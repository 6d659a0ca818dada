// What it is: how the slots of routes from the WAL are, and what the server and tables lack for them.
// Who calls it: eventbus.health().
// Never: is run by anything that has to be quick.
#pragma once

#include "health/log_health.hpp"

namespace eventbus::health {

// Between SPI_connect and SPI_finish. Calls put for each finding; nothing where no route is from the WAL.
void look_at_wal(void (*put)(void* context, const char* name, const Finding& finding), void* context);

}  // namespace eventbus::health
