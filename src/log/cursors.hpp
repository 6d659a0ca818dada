// What it is: cursors in their table: loading, making, saving.
// Who calls it: create_route (to make one), the sender (to load and save), the keeper (to load).
// Never: is written before what it says has been settled, and its dead letters stored.
#pragma once

#include "log/reader.hpp"

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

struct StoredCursor {
    int32 route_id;
    bool exists;
    ItemPointerData place;  // where its row stands; the writer keeps it, so that row versions cost nothing
    Cursor cursor;          // allocated in the caller's context
    Counters counters;
};

// These run between SPI_connect and SPI_finish.
void load_cursor(int32 route_id, MemoryContext memory, StoredCursor* into);
// The cursor of a route created by the current transaction: everything that becomes visible from now on.
void make_cursor(int32 route_id, bool earliest);
// Writes a row anew; returns false where the route has been dropped.
bool save_cursor(StoredCursor* stored, MemoryContext memory);

}  // namespace eventbus::log
