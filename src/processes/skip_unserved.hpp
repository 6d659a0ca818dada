// What it is: leaving events out for routes that nobody serves.
// Who calls it: the keeper's upkeep, and senders for routes whose row cannot be used.
// Never: touches the cursor of a route whose sender runs; the sender does it itself (skip_ahead in sender.hpp).
#pragma once

#include "counters/shared.hpp"
#include "router/route.hpp"

namespace eventbus::processes {

// Leaves out what routes of unserved brokers have not delivered of segments before the generation.
void skip_unserved(int64 before, bool (*is_served)(int32 broker_id), counters::LogSpace* room);
// The same for one route, between SPI_connect and SPI_finish; nobody else writes its cursors.
void skip_route(int32 route_id, const char* topics, int64 before);
// Whether the patterns match; true where there is no memory to find out.
bool matches(const router::TopicFilter* filter, std::string_view topic);

}  // namespace eventbus::processes
