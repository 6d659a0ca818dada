// What it is: dead letters in their table: storing, taking back for another try.
// Who calls it: the sender, between SPI_connect and SPI_finish.
// Never: loses one: it is deleted only when delivered or discarded.
#pragma once

#include <string_view>

#include "core/event.hpp"
#include "postgres/prelude.hpp"

namespace eventbus::catalog {

// Stores an event that was refused for good. One that is there already (sent again, and refused again) gets the new
// error and its attempts added.
void store_dead_letter(int32 route_id, const Event& event, std::string_view error, int32 attempts);

// Dead letters that an operator wants sent again, in id order from behind after_id on; allocated in `memory`.
int take_requeued(int32 route_id, int64 after_id, int most, Event** events, MemoryContext memory);

// A redelivered one has arrived.
void forget_dead_letter(int32 route_id, int64 event_id);

}  // namespace eventbus::catalog
