// What it is: see cursors.hpp.
// Who calls it: see cursors.hpp.
// Never: looks up a row by its key when it knows its place: under a held xmin every old version of the row would
//        have to be passed.
#include "log/cursors.hpp"

#include "postgres/query.hpp"

namespace eventbus::log {

void load_cursor(int32 route_id, MemoryContext memory, StoredCursor* into) {
    *into = StoredCursor();
    into->route_id = route_id;
    run_query(
        "SELECT ctid, done::text, batch::text, start_generation, start_block, start_offset, end_generation, end_block, "
        "end_offset, settled_id, creator_xid::text, creator_id, delivered, dead, retries, last_delivered_at, "
        "last_error, last_error_at, first_generation, skipped FROM eventbus.cursor WHERE route_id = $1",
        {Argument::of(route_id)}, true);
    if (SPI_processed == 0) return;  // a restored dump has routes but no cursors: they begin with the log
    into->exists = true;
    bool null;
    ItemPointerCopy(reinterpret_cast<ItemPointer>(DatumGetPointer(datum_at(0, 1, &null))), &into->place);
    Cursor& cursor = into->cursor;
    cursor.done = snapshot_from_text(text_at(0, 2), memory);
    cursor.in_batch = !is_null_at(0, 3);
    if (cursor.in_batch) cursor.batch = snapshot_from_text(text_at(0, 3), memory);
    auto position = [](int column) {
        return Position{int8_at(0, column), static_cast<BlockNumber>(int8_at(0, column + 1)),
                        static_cast<OffsetNumber>(int4_at(0, column + 2))};
    };
    cursor.start = position(4);
    cursor.end = position(7);
    cursor.settled_id = int8_at(0, 10);
    cursor.creator_xid = strtoull(text_at(0, 11), nullptr, 10);
    cursor.creator_id = int8_at(0, 12);
    into->counters.delivered = int8_at(0, 13);
    into->counters.dead = int8_at(0, 14);
    into->counters.retries = int8_at(0, 15);
    into->counters.last_delivered_at = time_at(0, 16);
    if (char* error = text_at(0, 17)) into->counters.last_error = MemoryContextStrdup(memory, error);
    into->counters.last_error_at = time_at(0, 18);
    cursor.first_generation = int8_at(0, 19);
    into->counters.skipped = int8_at(0, 20);
}

void make_cursor(int32 route_id, bool earliest) {
    if (earliest) {
        run_query("INSERT INTO eventbus.cursor (route_id, done) VALUES ($1, '1:1:')", {Argument::of(route_id)});
        return;
    }
    // Not the transaction's snapshot: under REPEATABLE READ that one may be old.
    XidSnapshot now = take_snapshot(GetLatestSnapshot(), CurrentMemoryContext);
    uint64 xid = U64FromFullTransactionId(GetTopFullTransactionId());
    add_running(&now, xid, CurrentMemoryContext);
    char creator[32];
    snprintf(creator, sizeof creator, UINT64_FORMAT, xid);
    run_query(
        "INSERT INTO eventbus.cursor (route_id, done, creator_xid, creator_id) "
        "VALUES ($1, $2::pg_snapshot, $3::xid8, nextval('eventbus.event_id'))",
        {Argument::of(route_id), Argument::of(snapshot_to_text(now)), Argument::of(creator)});
}

bool save_cursor(StoredCursor* stored, MemoryContext memory) {
    const Cursor& cursor = stored->cursor;
    const Counters& counters = stored->counters;
    char creator[32];
    snprintf(creator, sizeof creator, UINT64_FORMAT, cursor.creator_xid);
    char* done = snapshot_to_text(cursor.done);
    char* batch = cursor.in_batch ? snapshot_to_text(cursor.batch) : nullptr;
    const char* set =
        "done = $2::pg_snapshot, batch = $3::pg_snapshot, start_generation = $4, start_block = $5, start_offset = $6, "
        "end_generation = $7, end_block = $8, end_offset = $9, settled_id = $10, delivered = $11, dead = $12, "
        "retries = $13, last_delivered_at = $14, last_error = coalesce($15, last_error), last_error_at = $16, "
        "first_generation = $18, skipped = $19";

    // By place first; the row is elsewhere only after somebody has rewritten the table.
    for (const char* where : {"ctid = $17 AND route_id = $1", "route_id = $1 AND $17 IS NOT NULL"}) {
        if (!stored->exists) break;
        char* sql = psprintf("UPDATE eventbus.cursor SET %s WHERE %s RETURNING ctid", set, where);
        run_query(sql,
                  {Argument::of(stored->route_id), Argument::of(done), Argument::of(static_cast<const char*>(batch)),
                   Argument::of(cursor.start.generation), Argument::of(static_cast<int64>(cursor.start.block)),
                   Argument::of(static_cast<int32>(cursor.start.offset)), Argument::of(cursor.end.generation),
                   Argument::of(static_cast<int64>(cursor.end.block)),
                   Argument::of(static_cast<int32>(cursor.end.offset)), Argument::of(cursor.settled_id),
                   Argument::of(counters.delivered), Argument::of(counters.dead), Argument::of(counters.retries),
                   Argument::of_time(counters.last_delivered_at), Argument::of(counters.last_error),
                   Argument::of_time(counters.last_error_at), Argument{TIDOID, PointerGetDatum(&stored->place), false},
                   Argument::of(cursor.first_generation), Argument::of(counters.skipped)});
        if (SPI_processed == 1) {
            bool null;
            ItemPointerCopy(reinterpret_cast<ItemPointer>(DatumGetPointer(datum_at(0, 1, &null))), &stored->place);
            return true;
        }
    }
    // None yet (a restored dump), unless the route itself is gone.
    run_query(
        "INSERT INTO eventbus.cursor (route_id, done) SELECT id, $2::pg_snapshot FROM eventbus.route_config "
        "WHERE id = $1 ON CONFLICT DO NOTHING",
        {Argument::of(stored->route_id), Argument::of("1:1:")});
    if (SPI_processed != 1) return false;
    Cursor keep = stored->cursor;
    Counters counted = stored->counters;
    StoredCursor fresh;
    load_cursor(stored->route_id, memory, &fresh);
    stored->exists = fresh.exists;
    stored->place = fresh.place;
    stored->cursor = keep;
    stored->counters = counted;
    return fresh.exists && save_cursor(stored, memory);
}

}  // namespace eventbus::log
