// What it is: rows of eventbus.cursor: a route's counters, what a parked key takes, and the columns that are a source's own.
// Who calls it: the sources, for their routes; what shows counters.
// Never: is written before what it says has been settled, and its dead letters stored; a parked key's row goes before the
//        route's own cursor has passed what the parked key has settled.
#pragma once

#include <optional>
#include <span>

#include "core/event_id.hpp"
#include "postgres/query.hpp"

extern "C" {
#include "storage/itemptr.h"
}

namespace eventbus::cursors {

struct Counters {
    int64 delivered = 0;
    int64 dead = 0;
    int64 retries = 0;
    int64 skipped = 0;
    TimestampTz last_delivered_at = 0;
    TimestampTz last_error_at = 0;
    const char* last_error = nullptr;
};

struct Ids {
    const EventId* first;  // rising
    int count;
};

// What a parked key takes: the events of a key, or certain ones that have none.
struct ParkedEvents {
    bool has_key;
    std::string_view key;  // UTF-8
    Ids events;
    Ids settled;  // though the cursor is before them
};

bool has(const Ids& ids, const EventId& id);
bool takes(const ParkedEvents& parked_key, const EventId& id, const std::optional<std::string_view>& key);

// A row without its source's columns.
struct Row {
    int32 route_id;
    int32 parked_key;  // 0: the route itself
    bool exists;
    ItemPointerData at;  // where the row stands; the writer keeps it, so that row versions cost nothing
    Counters counters;
};

// The columns that are one source's own. A source that has none keeps its place in column `place` alone.
struct OwnColumns {
    const char* selected;  // "done::text, files": what a SELECT says, `count` columns; see load()
    const char* assigned;  // "done = $1::pg_snapshot, files = $2": what an UPDATE says of the same, as parameters
    int count;
    Prepared at_place;  // the UPDATE, planned once a process
    Prepared anywhere;  // the same where somebody has rewritten the table
};

// These run between SPI_connect and SPI_finish.

// Reads a row; false where there is none (a restored dump has routes, but no cursors). What the row refers to is
// allocated in `memory`. The source's own columns are columns 1 to own.count of row 0 of SPI_tuptable, and behind them
// is `place`.
bool load(int32 route_id, int32 parked_key, const OwnColumns& own, MemoryContext memory, Row* into);
// A route's counters alone.
Counters load_counters(int32 route_id, MemoryContext memory);
// A route's parked keys, rising; returns how many. Everything is allocated in `memory`.
int load_parked_keys(int32 route_id, MemoryContext memory, int32** parked_keys, ParkedEvents** events);
// Writes a row again, or for the first time: the source's own columns, and its place as a text. `events` is nullptr for
// a route itself. False where the route has been dropped.
bool save(Row* row, OwnColumns& own, std::span<const Argument> values, const char* place, const ParkedEvents* events);
void remove(const Row& row);

}  // namespace eventbus::cursors
