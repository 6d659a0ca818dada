// What it is: the log's columns of eventbus.cursor: a place between two snapshots.
// Who calls it: create_route (to make a row), the sender (to load and save), the keeper (to load).
// Never: knows what else is in a row; cursors/cursor_row.hpp has that.
#pragma once

#include "cursors/cursor_row.hpp"
#include "source/log/reader.hpp"

namespace eventbus::log {

// These run between SPI_connect and SPI_finish.
// What the cursor refers to is allocated in `memory`.
void load_cursor(int32 route_id, int32 parked_key, MemoryContext memory, cursors::Row* row, Cursor* cursor);
// The cursor of a route created by the current transaction: everything that becomes visible from now on.
void make_cursor(int32 route_id, bool earliest);
// A route goes, or takes other topics: what was published until now may have been its.
void judge_no_earlier_event();
// Writes a row again, `events` being nullptr for a route itself; returns false where the route has been dropped.
bool save_cursor(cursors::Row* row, const Cursor& cursor, const cursors::ParkedEvents* events);

}  // namespace eventbus::log
