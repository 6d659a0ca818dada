// What it is: what waits for a route of the log: how many events, how many bytes, since when.
// Who calls it: the status functions.
// Never: reads more of a backlog than a small part; the rest is estimated, and said to be.
#pragma once

#include "source/log/cursors.hpp"

namespace eventbus::health {

struct Backlog {
    TimestampTz oldest = 0;  // when the oldest was published; 0: nothing waits
    int64 events = 0;
    int64 bytes = 0;  // of their payloads
    bool estimated = false;
};

// Of a route and its parked keys; between SPI_connect and SPI_finish, with an active snapshot.
Backlog look_behind(int32 route_id, const log::Cursor& cursor, const char* topics);

}  // namespace eventbus::health
