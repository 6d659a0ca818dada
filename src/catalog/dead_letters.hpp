// What it is: dead letters in their table: storing, taking back for another try.
// Who calls it: the sender, between SPI_connect and SPI_finish.
// Never: loses one: it is deleted only when delivered or discarded.
#pragma once

#include <string_view>

#include "core/event.hpp"
#include "postgres/prelude.hpp"

namespace eventbus::catalog {

// Which event cannot be delivered on which route.
struct DeadLetter {
    int32 route_id;
    const Event* event;
    std::string_view error;
    int32 attempts;
};

// Stores events that were refused for good. One that is there already (sent again, and refused again) gets the new
// error and its attempts added. One that the table does not take is stored without payload and headers, and says so.
// Errors only where that fails, too: a shortage, or a table that is not ours any more.
void store_dead_letters(const DeadLetter* letters, int count);

// Dead letters that an operator wants sent again, in id order from behind after_id on; allocated in `memory`. The last
// one may step over most_bytes, whatever its size.
int take_requeued(int32 route_id, int64 after_id, int most, int64 most_bytes, Event** events, MemoryContext memory);

// How many of them still wait; `ids` is a bigint[] as text.
int64 count_requeued(int32 route_id, const char* ids);

// A redelivered one has arrived.
void forget_dead_letter(int32 route_id, int64 event_id);

}  // namespace eventbus::catalog
