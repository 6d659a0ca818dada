// Never: looks up a row by its key when it knows its place: under a held xmin every old version of the row would
//        have to be passed.
#include "source/log/cursors.hpp"

#include <algorithm>
#include <span>

#include "postgres/query.hpp"

extern "C" {
#include "utils/array.h"
}

namespace eventbus::log {

namespace {

ItemPointerData place_at(uint64 row, int column) {
    bool null;
    return *reinterpret_cast<ItemPointer>(DatumGetPointer(datum_at(row, column, &null)));
}

Argument array_of(Datum* numbers, int count) {
    ArrayType* array = construct_array(numbers, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
    return {INT8ARRAYOID, PointerGetDatum(array), false};
}

// The numbers of events of the log; of those of the WAL each one's LSN and number, one behind the other.
Argument array_of(const Ids& ids) {
    auto* numbers = static_cast<Datum*>(palloc(sizeof(Datum) * (2 * static_cast<Size>(ids.count) + 1)));
    int count = 0;
    for (const EventId& id : std::span(ids.first, static_cast<Size>(ids.count))) {
        if (!id.is_of_log()) numbers[count++] = Int64GetDatum(static_cast<int64>(id.lsn));
        numbers[count++] = Int64GetDatum(id.number);
    }
    return array_of(numbers, count);
}

int numbers_at(uint64 row, int column, Datum** numbers) {
    bool null;
    Datum array = datum_at(row, column, &null);
    if (null) return 0;
    int count;
    deconstruct_array(DatumGetArrayTypeP(array), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, numbers,
                      nullptr, &count);
    return count;
}

Ids ids_at(uint64 row, int column, bool of_wal, MemoryContext memory) {
    Datum* numbers;
    int count = numbers_at(row, column, &numbers);
    if (of_wal) count /= 2;
    auto* ids = static_cast<EventId*>(MemoryContextAlloc(memory, sizeof(EventId) * (static_cast<Size>(count) + 1)));
    for (int i = 0; i < count; ++i)
        ids[i] = of_wal ? EventId{DatumGetUInt64(numbers[2 * i]), DatumGetInt64(numbers[2 * i + 1])}
                        : EventId::of_log(DatumGetInt64(numbers[i]));
    return {ids, count};
}

// Hundreds of routes are loaded and saved in one transaction, each with results of its own.
void forget_result() {
    SPI_freetuptable(SPI_tuptable);
    SPI_tuptable = nullptr;
}

// A row that knows nothing yet; false where the route is gone.
bool insert(StoredCursor* stored, const ParkedEvents* events) {
    Argument key = Argument::null_of(BYTEAOID);
    Argument ids = Argument::null_of(INT8ARRAYOID);
    if (events != nullptr && events->has_key)
        key = Argument::of_bytes(cstring_to_text_with_len(events->key.data(), static_cast<int>(events->key.size())));
    else if (events != nullptr)
        ids = array_of(events->events);
    char creator[32];
    snprintf(creator, sizeof creator, UINT64_FORMAT, stored->cursor.creator_xid);
    run_query(
        "INSERT INTO eventbus.cursor (route_id, parked_key, done, creator_xid, creator_id, key, event_ids) "
        "SELECT id, $2, '1:1:', $3::xid8, $4, convert_from($5, 'UTF8'), $6 FROM eventbus.route_config WHERE id = $1 "
        "RETURNING ctid",
        {Argument::of(stored->route_id), Argument::of(stored->parked_key),
         Argument::of(static_cast<const char*>(creator)), Argument::of(stored->cursor.creator_id), key, ids});
    if (SPI_processed != 1) return false;
    stored->place = place_at(0, 1);
    stored->exists = true;
    return true;
}

enum class Where { at_place, anywhere };

// Planned once a process: hundreds of routes are saved many times a second.
Prepared* update_statement(Where where) {
    static Prepared at_place = {};
    static Prepared anywhere = {};  // somebody has rewritten the table
    Prepared* statement = where == Where::at_place ? &at_place : &anywhere;
    if (statement->sql != nullptr) return statement;
    statement->sql = MemoryContextStrdup(
        TopMemoryContext,
        psprintf("UPDATE eventbus.cursor SET done = $3::pg_snapshot, batch = $4::pg_snapshot, start_generation = $5, "
                 "start_block = $6, start_offset = $7, end_generation = $8, end_block = $9, end_offset = $10, "
                 "settled_id = $11, delivered = $12, dead = $13, retries = $14, last_delivered_at = $15, "
                 "last_error = coalesce($16, last_error), last_error_at = $17, settled_ids = $18, "
                 "first_generation = $20, skipped = $21, wal_slot = nullif($22, ''), wal_lsn = $23, "
                 "wal_number = $24, wal_lost = $25, files = $26, wal_system = nullif($27, 0) WHERE route_id = $1 AND "
                 "parked_key = $2 AND %s "
                 "RETURNING ctid",
                 where == Where::at_place ? "ctid = $19" : "$19 IS NOT NULL"));
    return statement;
}

bool update(StoredCursor* stored, const ParkedEvents* events, Where where) {
    const Cursor& cursor = stored->cursor;
    const Counters& counters = stored->counters;
    const char* batch = cursor.in_batch ? snapshot_to_text(cursor.batch) : nullptr;
    Datum files[segment_count];
    for (int i = 0; i < segment_count; ++i) files[i] = Int64GetDatum(static_cast<int64>(cursor.files[i]));
    const Argument params[] = {Argument::of(stored->route_id),
                               Argument::of(stored->parked_key),
                               Argument::of(static_cast<const char*>(snapshot_to_text(cursor.done))),
                               Argument::of(batch),
                               Argument::of(cursor.start.generation),
                               Argument::of(static_cast<int64>(cursor.start.block)),
                               Argument::of(static_cast<int32>(cursor.start.offset)),
                               Argument::of(cursor.end.generation),
                               Argument::of(static_cast<int64>(cursor.end.block)),
                               Argument::of(static_cast<int32>(cursor.end.offset)),
                               Argument::of(cursor.settled_id),
                               Argument::of(counters.delivered),
                               Argument::of(counters.dead),
                               Argument::of(counters.retries),
                               Argument::of_time(counters.last_delivered_at),
                               Argument::of(counters.last_error),
                               Argument::of_time(counters.last_error_at),
                               events != nullptr ? array_of(events->settled) : Argument::null_of(INT8ARRAYOID),
                               Argument{TIDOID, PointerGetDatum(&stored->place), false},
                               Argument::of(cursor.first_generation),
                               Argument::of(counters.skipped),
                               Argument::of(static_cast<const char*>(cursor.wal.slot)),
                               Argument{LSNOID, UInt64GetDatum(cursor.wal.at.lsn), false},
                               Argument::of(cursor.wal.at.number),
                               Argument::of(cursor.wal.lost),
                               cursor.in_batch ? array_of(files, segment_count) : Argument::null_of(INT8ARRAYOID),
                               Argument::of(cursor.wal.system)};
    Prepared* statement = update_statement(where);
    constexpr int count = sizeof params / sizeof *params;
    static_assert(count <= Prepared::most);
    for (int i = 0; i < count; ++i) statement->types[i] = params[i].type;
    (void)run_prepared(*statement, params, count);
    if (SPI_processed != 1) return false;
    stored->place = place_at(0, 1);
    forget_result();
    return true;
}

}  // namespace

bool has(const Ids& ids, const EventId& id) {
    return std::binary_search(ids.first, ids.first + ids.count, id);
}

bool takes(const ParkedEvents& parked_key, const EventId& id, const std::optional<std::string_view>& key) {
    return parked_key.has_key ? key == parked_key.key : has(parked_key.events, id);
}

int load_parked_keys(int32 route_id, bool of_wal, MemoryContext memory, int32** parked_keys, ParkedEvents** events) {
    run_query(
        "SELECT parked_key, convert_to(key, 'UTF8'), event_ids, settled_ids FROM eventbus.cursor "
        "WHERE route_id = $1 AND parked_key > 0 ORDER BY 1",
        {Argument::of(route_id)}, true);
    auto count = static_cast<int>(SPI_processed);
    *parked_keys = static_cast<int32*>(MemoryContextAlloc(memory, sizeof(int32) * (count + 1)));
    *events = static_cast<ParkedEvents*>(MemoryContextAllocZero(memory, sizeof(ParkedEvents) * (count + 1)));
    for (int i = 0; i < count; ++i) {
        (*parked_keys)[i] = int4_at(i, 1);
        ParkedEvents& taken = (*events)[i];
        bool null;
        Datum key = datum_at(i, 2, &null);
        taken.has_key = !null;
        if (!null) {
            bytea* bytes = DatumGetByteaPP(key);
            Size length = VARSIZE_ANY_EXHDR(bytes);
            auto* copy = static_cast<char*>(MemoryContextAlloc(memory, length + 1));
            memcpy(copy, VARDATA_ANY(bytes), length);
            taken.key = {copy, length};
        }
        taken.events = ids_at(i, 3, of_wal, memory);
        taken.settled = ids_at(i, 4, of_wal, memory);
    }
    forget_result();
    return count;
}

void load_cursor(int32 route_id, int32 parked_key, MemoryContext memory, StoredCursor* into) {
    *into = StoredCursor();
    into->route_id = route_id;
    into->parked_key = parked_key;
    run_query(
        "SELECT ctid, done::text, batch::text, start_generation, start_block, start_offset, end_generation, end_block, "
        "end_offset, settled_id, creator_xid::text, creator_id, delivered, dead, retries, last_delivered_at, "
        "last_error, last_error_at, first_generation, skipped, wal_slot, wal_lsn, wal_number, wal_lost, files, "
        "wal_system FROM eventbus.cursor WHERE route_id = $1 AND parked_key = $2",
        {Argument::of(route_id), Argument::of(parked_key)}, true);
    if (SPI_processed == 0) {  // a restored dump has routes but no cursors: they begin with the log
        into->cursor.done = snapshot_from_text("1:1:", memory);
        return;
    }
    into->exists = true;
    into->place = place_at(0, 1);
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
    if (char* slot = text_at(0, 21)) strlcpy(cursor.wal.slot, slot, sizeof cursor.wal.slot);
    bool null;
    cursor.wal.at.lsn = DatumGetUInt64(datum_at(0, 22, &null));
    cursor.wal.at.number = int8_at(0, 23);
    cursor.wal.lost = bool_at(0, 24);
    Datum* files;
    const int file_count = std::min(numbers_at(0, 25, &files), segment_count);
    for (int i = 0; i < file_count; ++i) cursor.files[i] = static_cast<uint32>(DatumGetInt64(files[i]));
    cursor.wal.system = int8_at(0, 26);
    forget_result();
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

void make_wal_cursor(int32 route_id) {
    run_query("INSERT INTO eventbus.cursor (route_id, done, wal_lsn) VALUES ($1, '1:1:', pg_current_wal_insert_lsn())",
              {Argument::of(route_id)});
}

void restart_wal_cursor(int32 route_id) {
    run_query(
        "UPDATE eventbus.cursor SET wal_slot = NULL, wal_lsn = pg_current_wal_insert_lsn(), wal_number = 0, "
        "wal_lost = false WHERE route_id = $1 AND wal_lost",
        {Argument::of(route_id)});
}

void judge_no_earlier_event() {
    run_query("SELECT setval('eventbus.unrouted_after', nextval('eventbus.event_id'))");
}

bool save_cursor(StoredCursor* stored, const ParkedEvents* events) {
    for (Where where : {Where::at_place, Where::anywhere})
        if (stored->exists && update(stored, events, where)) return true;
    // None yet (a new parked key, a restored dump), unless the route itself is gone.
    return insert(stored, events) && update(stored, events, Where::at_place);
}

void delete_cursor(const StoredCursor& stored) {
    run_query("DELETE FROM eventbus.cursor WHERE route_id = $1 AND parked_key = $2",
              {Argument::of(stored.route_id), Argument::of(stored.parked_key)});
}

}  // namespace eventbus::log
