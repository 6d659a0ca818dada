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
// error and its attempts added. Of one that the table does not take whole as much is stored as it takes, and says so.
// Errors only where that fails, too: a shortage, or a table that is not ours any more. With spare_memory that there is
// no memory for a large one is no shortage: its payload is left out.
void store_dead_letters(const DeadLetter* letters, int count, bool spare_memory);

// Dead letters that an operator wants sent again, in the order of ids from behind `after` on; allocated in `memory`.
// The last one may step over most_bytes, whatever its size. What the table cannot give any more is put back among the
// dead.
int take_requeued(int32 route_id, const EventId& after, int most, int64 most_bytes, Event** events,
                  MemoryContext memory);

// How many of them still wait.
int64 count_requeued(int32 route_id, const EventId* ids, int count);

// A redelivered one has arrived.
void forget_dead_letter(int32 route_id, const EventId& id);

}  // namespace eventbus::catalog
