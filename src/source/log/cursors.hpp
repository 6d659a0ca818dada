// What it is: cursors in their table: loading, making, saving.
// Who calls it: create_route (to make one), the sender (to load and save), the keeper (to load).
// Never: is written before what it says has been settled, and its dead letters stored; a parked key's row goes before the
//        route's own cursor has passed what the parked key has settled.
#pragma once

#include "source/log/reader.hpp"

extern "C" {
#include "storage/itemptr.h"
}

namespace eventbus::log {

// What a cursor's row holds besides the cursor.
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

struct StoredCursor {
    int32 route_id;
    int32 parked_key;  // 0: the route itself
    bool exists;
    ItemPointerData place;  // where its row stands; the writer keeps it, so that row versions cost nothing
    Cursor cursor;          // allocated in the caller's context
    Counters counters;
};

bool has(const Ids& ids, const EventId& id);
bool takes(const ParkedEvents& parked_key, const EventId& id, const std::optional<std::string_view>& key);

// These run between SPI_connect and SPI_finish.
void load_cursor(int32 route_id, int32 parked_key, MemoryContext memory, StoredCursor* into);
// A route's parked keys, rising; returns how many. Everything is allocated in `memory`.
int load_parked_keys(int32 route_id, bool of_wal, MemoryContext memory, int32** parked_keys, ParkedEvents** events);
// The cursor of a route created by the current transaction: everything that becomes visible from now on.
void make_cursor(int32 route_id, bool earliest);
// The same of a route from the WAL: what commits from now on.
void make_wal_cursor(int32 route_id);
// The same of one that was lost; touches no other.
void restart_wal_cursor(int32 route_id);
// A route goes, or takes other topics: what was published until now may have been its.
void judge_no_earlier_event();
// Writes a row again, `events` being nullptr for a route itself; returns false where the route has been dropped.
bool save_cursor(StoredCursor* stored, const ParkedEvents* events);
void delete_cursor(const StoredCursor& stored);

}  // namespace eventbus::log
