#include "source/log/cursors.hpp"

#include <algorithm>

extern "C" {
#include "utils/array.h"
}

namespace eventbus::log {

namespace {

constinit cursors::OwnColumns own = {
    "done::text, batch::text, start_generation, start_block, start_offset, end_generation, end_block, end_offset, "
    "settled_id, files, creator_xid::text, creator_id, first_generation",
    "done = $1::pg_snapshot, batch = $2::pg_snapshot, start_generation = $3, start_block = $4, start_offset = $5, "
    "end_generation = $6, end_block = $7, end_offset = $8, settled_id = $9, files = $10, "
    "creator_xid = greatest(creator_xid, $11::xid8), creator_id = greatest(creator_id, $12), first_generation = $13",
    13,
    {},
    {}};

char* text_of(uint64 xid) {
    return psprintf(UINT64_FORMAT, xid);
}

Position position_at(int column) {
    return {int8_at(0, column), static_cast<BlockNumber>(int8_at(0, column + 1)),
            static_cast<OffsetNumber>(int4_at(0, column + 2))};
}

}  // namespace

void load_cursor(int32 route_id, int32 parked_key, MemoryContext memory, cursors::Row* row, Cursor* into) {
    *into = Cursor();
    Cursor& cursor = *into;
    if (!cursors::load(route_id, parked_key, own, memory, row) || is_null_at(0, 1)) {
        cursor.done = snapshot_from_text("1:1:", memory);  // it begins with the log
        return;
    }
    cursor.done = snapshot_from_text(text_at(0, 1), memory);
    cursor.in_batch = !is_null_at(0, 2);
    if (cursor.in_batch) cursor.batch = snapshot_from_text(text_at(0, 2), memory);
    cursor.start = position_at(3);
    cursor.end = position_at(6);
    cursor.settled_id = int8_at(0, 9);
    bool null;
    Datum array = datum_at(0, 10, &null);
    if (!null) {
        Datum* files;
        int count;
        deconstruct_array(DatumGetArrayTypeP(array), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &files,
                          nullptr, &count);
        for (int i = 0; i < std::min(count, segment_count); ++i)
            cursor.files[i] = static_cast<uint32>(DatumGetInt64(files[i]));
    }
    cursor.creator_xid = strtoull(text_at(0, 11), nullptr, 10);
    cursor.creator_id = int8_at(0, 12);
    cursor.first_generation = int8_at(0, 13);
}

void make_cursor(int32 route_id, bool earliest) {
    if (earliest) {
        run_query("INSERT INTO eventbus.cursor (route_id, source, done) VALUES ($1, 'log', '1:1:')",
                  {Argument::of(route_id)});
        return;
    }
    // Not the transaction's snapshot: under REPEATABLE READ that one may be old.
    XidSnapshot now = take_snapshot(GetLatestSnapshot(), CurrentMemoryContext);
    uint64 xid = U64FromFullTransactionId(GetTopFullTransactionId());
    add_running(&now, xid, CurrentMemoryContext);
    run_query(
        "INSERT INTO eventbus.cursor (route_id, source, done, creator_xid, creator_id) "
        "VALUES ($1, 'log', $2::pg_snapshot, $3::xid8, nextval('eventbus.event_id'))",
        {Argument::of(route_id), Argument::of(snapshot_to_text(now)), Argument::of(text_of(xid))});
}

void judge_no_earlier_event() {
    run_query("SELECT setval('eventbus.unrouted_after', nextval('eventbus.event_id'))");
}

bool save_cursor(cursors::Row* row, const Cursor& cursor, const cursors::ParkedEvents* events) {
    const char* done = snapshot_to_text(cursor.done);
    const char* batch = nullptr;
    const char* place = done;
    Argument files = Argument::null_of(INT8ARRAYOID);
    if (cursor.in_batch) {
        batch = snapshot_to_text(cursor.batch);
        place = psprintf("%s to %s at " INT64_FORMAT ".%u.%u", done, batch, cursor.start.generation, cursor.start.block,
                         cursor.start.offset);
        Datum numbers[segment_count];
        for (int i = 0; i < segment_count; ++i) numbers[i] = Int64GetDatum(static_cast<int64>(cursor.files[i]));
        files.value = PointerGetDatum(
            construct_array(numbers, segment_count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
        files.null = false;
    }
    const Argument values[] = {Argument::of(done),
                               Argument::of(batch),
                               Argument::of(cursor.start.generation),
                               Argument::of(static_cast<int64>(cursor.start.block)),
                               Argument::of(static_cast<int32>(cursor.start.offset)),
                               Argument::of(cursor.end.generation),
                               Argument::of(static_cast<int64>(cursor.end.block)),
                               Argument::of(static_cast<int32>(cursor.end.offset)),
                               Argument::of(cursor.settled_id),
                               files,
                               Argument::of(text_of(cursor.creator_xid)),
                               Argument::of(cursor.creator_id),
                               Argument::of(cursor.first_generation)};
    return cursors::save(row, own, values, place, events);
}

}  // namespace eventbus::log
