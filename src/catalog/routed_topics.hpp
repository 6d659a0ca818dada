// What it is: which topics the routes from the log take, whatever state they are in.
// Who calls it: the keeper and health(), for events that no route took.
// Never: asks whether a route's row can be used otherwise.
#pragma once

#include <string_view>

#include "postgres/prelude.hpp"

namespace eventbus::catalog {

// Ids of events; one that was published before a route was made, and has a lower id, is not the route's.
inline constexpr int64 taken_never = PG_INT64_MAX;

struct Taken;

// Between SPI_connect and SPI_finish; in `memory`.
Taken* read_taken(MemoryContext memory);
// From which id on a route takes events of every topic. One whose patterns cannot be read may take all.
int64 everything_taken_from(const Taken* taken);
// The same of a topic, in UTF-8. Never ereports.
int64 taken_from(Taken* taken, std::string_view topic);

}  // namespace eventbus::catalog
