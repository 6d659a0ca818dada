#include "source/wal/slot.hpp"

#include <algorithm>

#include "postgres/query.hpp"

extern "C" {
#include "replication/slot.h"
}

namespace eventbus::wal {

const char* slot_name(Oid database, int32 broker_id) {
    return psprintf("pg_eventbus_%u_%d", database, broker_id);
}

void release_slot() {
    if (MyReplicationSlot != nullptr) ReplicationSlotRelease();
}

SlotState look_up_slot(const char* name) {
    run_query(
        "SELECT coalesce(wal_status = 'lost', false), active, (confirmed_flush_lsn - '0/0')::bigint, "
        "coalesce((to_jsonb(s) ->> 'synced')::boolean, false), slot_type = 'physical', plugin::text, database::text, "
        "datoid = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "FROM pg_replication_slots s WHERE slot_name = $1",
        {Argument::of(name)}, true);
    if (SPI_processed == 0) return {};
    SlotState slot = {true,   bool_at(0, 1), bool_at(0, 2), bool_at(0, 4), static_cast<XLogRecPtr>(int8_at(0, 3)),
                      nullptr};
    const char* alien = nullptr;
    if (bool_at(0, 5))
        alien = "it is a physical one";
    else if (!bool_at(0, 8))
        alien = psprintf("it belongs to database \"%s\"", text_at(0, 7));
    else if (strcmp(text_at(0, 6), plugin) != 0)
        alien = psprintf("its output plugin is %s", text_at(0, 6));
    if (alien != nullptr) slot.alien = psprintf("replication slot %s was made by somebody else: %s", name, alien);
    return slot;
}

const char* hint_to_drop(const char* slot) {
    return psprintf(
        "SELECT pg_drop_replication_slot('%s'); one of ours is made then, for a lost route after "
        "eventbus.restart_route.",
        slot);
}

void drop_slot(const char* name) {
    ReplicationSlotDrop(name, true);
}

bool drop_slots_but(const int32* broker_ids, int count, bool (*may_drop)(int32 broker_id)) {
    run_query(
        "SELECT slot_name::text, active, substring(slot_name FROM '[0-9]+$')::bigint FROM pg_replication_slots "
        "WHERE datoid = $1::text::oid AND plugin = 'pg_eventbus' AND slot_name ~ ('^pg_eventbus_' || $1 || '_[0-9]+$')",
        {Argument::of(static_cast<const char*>(psprintf("%u", MyDatabaseId)))}, true);
    struct Line {
        char* slot;
        bool active;
        int32 broker_id;
    };
    auto lines = static_cast<int>(SPI_processed);
    auto* found = static_cast<Line*>(palloc(sizeof(Line) * static_cast<Size>(lines + 1)));
    for (int i = 0; i < lines; ++i) found[i] = {text_at(i, 1), bool_at(i, 2), static_cast<int32>(int8_at(i, 3))};
    bool all = true;
    for (int i = 0; i < lines; ++i) {
        const Line& line = found[i];
        if (std::find(broker_ids, broker_ids + count, line.broker_id) != broker_ids + count) continue;
        if (line.active || (may_drop != nullptr && !may_drop(line.broker_id)))
            all = false;
        else
            drop_slot(line.slot);
    }
    return all;
}

}  // namespace eventbus::wal
