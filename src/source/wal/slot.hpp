// What it is: replication slots of ours: their names, whether they are there and well, and their end.
// Who calls it: the sender before it opens a source, the keeper to drop what nobody needs, create_route and health().
// Never: drops a slot that has not our name.
#pragma once

#include "postgres/prelude.hpp"

namespace eventbus::wal {

inline constexpr const char* plugin = "pg_eventbus";

// pg_eventbus_<database oid>_<broker id>; palloc'd
const char* slot_name(Oid database, int32 broker_id);

struct SlotState {
    bool exists;
    bool lost;  // invalidated: WAL that it needed is gone
    bool active;
    bool synced;  // it has come from another server, as a standby's
    XLogRecPtr confirmed;
    const char* alien;  // why it is not ours, whatever its name; nullptr: it is
};

// The one that this process uses, if any.
void release_slot();

// These run between SPI_connect and SPI_finish.
SlotState look_up_slot(const char* name);
const char* hint_to_drop(const char* slot);
void drop_slot(const char* name);
// Drops this database's slots of ours whose brokers are not among those, and of which may_drop (nullptr: all) says so;
// false where one is still in use, or may not go.
bool drop_slots_but(const int32* broker_ids, int count, bool (*may_drop)(int32 broker_id));

}  // namespace eventbus::wal
