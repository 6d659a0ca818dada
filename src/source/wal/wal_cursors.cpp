#include "source/wal/wal_cursors.hpp"

namespace eventbus::wal {

static constinit cursors::OwnColumns own = {
    "wal_slot, wal_lsn, wal_number, wal_lost, wal_system",
    "wal_slot = nullif($1, ''), wal_lsn = $2, wal_number = $3, wal_lost = $4, wal_system = nullif($5, 0)",
    5,
    {},
    {}};

bool load_place(int32 route_id, int32 parked_key, MemoryContext memory, cursors::Row* row, Place* place) {
    *place = Place();
    if (!cursors::load(route_id, parked_key, own, memory, row)) return false;
    if (char* slot = text_at(0, 1)) strlcpy(place->slot, slot, sizeof place->slot);
    bool null;
    place->at = {DatumGetUInt64(datum_at(0, 2, &null)), int8_at(0, 3)};
    place->lost = bool_at(0, 4);
    place->system = int8_at(0, 5);
    return true;
}

bool save_place(cursors::Row* row, const Place& place, const cursors::ParkedEvents* events) {
    const Argument values[] = {Argument::of(static_cast<const char*>(place.slot)),
                               Argument{LSNOID, UInt64GetDatum(place.at.lsn), false}, Argument::of(place.at.number),
                               Argument::of(place.lost), Argument::of(place.system)};
    EventIdText text;
    return cursors::save(row, own, values, to_text(place.at, text).data(), events);
}

void make_cursor(int32 route_id) {
    run_query("INSERT INTO eventbus.cursor (route_id, source, wal_lsn) VALUES ($1, 'wal', pg_current_wal_insert_lsn())",
              {Argument::of(route_id)});
}

void restart_cursor(int32 route_id) {
    run_query(
        "UPDATE eventbus.cursor SET wal_slot = NULL, wal_lsn = pg_current_wal_insert_lsn(), wal_number = 0, "
        "wal_lost = false WHERE route_id = $1 AND wal_lost",
        {Argument::of(route_id)});
}

}  // namespace eventbus::wal
