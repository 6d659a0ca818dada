// What it is: the WAL's columns of eventbus.cursor: a place in a replication slot.
// Who calls it: create_route and restart_route (to make one), the sender (to load and save), status.
// Never: knows what else is in a row; cursors/cursor_row.hpp has that.
#pragma once

#include "cursors/cursor_row.hpp"

namespace eventbus::wal {

struct Place {
    char slot[NAMEDATALEN];  // empty: it has not begun
    EventId at;              // what commits before its lsn is settled, and so many changes of what commits there
    bool lost;               // the slot is gone, and what came behind the place with it
    int64 system;            // identifier of the server whose slot and places these are; 0: it was not noted
};

// These run between SPI_connect and SPI_finish.
// False where there is no row.
bool load_place(int32 route_id, int32 parked_key, MemoryContext memory, cursors::Row* row, Place* place);
bool save_place(cursors::Row* row, const Place& place, const cursors::ParkedEvents* events);
// Of a route created by the current transaction: what commits from now on.
void make_cursor(int32 route_id);
// The same of one that was lost; touches no other.
void restart_cursor(int32 route_id);

}  // namespace eventbus::wal
