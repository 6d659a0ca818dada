// What it is: how full the log is, and what fills it, as eventbus.health() says it.
// Who calls it: eventbus.health().
// Never: is run by anything that has to be quick.
#pragma once

namespace eventbus::health {

struct Finding {
    const char* level;
    const char* detail;
    const char* hint;  // nullptr: nothing to do
};

// Between SPI_connect and SPI_finish.
Finding look_at_log();

}  // namespace eventbus::health
