// Never: looks up a row by its key when it knows its place: under a held xmin every old version of the row would
//        have to be passed.
#include "cursors/cursor_row.hpp"

#include <algorithm>

extern "C" {
#include "utils/array.h"
}

namespace eventbus::cursors {

namespace {

ItemPointerData row_at(int column) {
    bool null;
    return *reinterpret_cast<ItemPointer>(DatumGetPointer(datum_at(0, column, &null)));
}

Argument array_of(const Ids& ids) {
    auto* texts = static_cast<Datum*>(palloc(sizeof(Datum) * (static_cast<Size>(ids.count) + 1)));
    for (int i = 0; i < ids.count; ++i) {
        EventIdText text;
        texts[i] = Argument::of(to_text(ids.first[i], text)).value;
    }
    return {TEXTARRAYOID, PointerGetDatum(construct_array(texts, ids.count, TEXTOID, -1, false, TYPALIGN_INT)), false};
}

Ids ids_at(uint64 row, int column, MemoryContext memory) {
    bool null;
    Datum array = datum_at(row, column, &null);
    Datum* texts = nullptr;
    int count = 0;
    if (!null) deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &texts, nullptr, &count);
    auto* ids = static_cast<EventId*>(MemoryContextAlloc(memory, sizeof(EventId) * (static_cast<Size>(count) + 1)));
    int known = 0;
    for (int i = 0; i < count; ++i)
        if (std::optional<EventId> id = read_event_id(TextDatumGetCString(texts[i]))) ids[known++] = *id;
    std::sort(ids, ids + known);
    return {ids, known};
}

// Hundreds of routes are loaded and saved in one transaction, each with results of its own.
void forget_result() {
    SPI_freetuptable(SPI_tuptable);
    SPI_tuptable = nullptr;
}

Counters counters_at(int first, MemoryContext memory) {
    Counters counters{int8_at(0, first),     int8_at(0, first + 1), int8_at(0, first + 2),
                      int8_at(0, first + 3), time_at(0, first + 4), time_at(0, first + 5)};
    if (char* error = text_at(0, first + 6)) counters.last_error = MemoryContextStrdup(memory, error);
    return counters;
}

#define COUNTERS "delivered, dead, retries, skipped, last_delivered_at, last_error_at, last_error"

// A row that knows nothing yet; false where the route is gone.
bool insert(Row* row, const ParkedEvents* events) {
    Argument key = Argument::null_of(BYTEAOID);
    Argument ids = Argument::null_of(TEXTARRAYOID);
    if (events != nullptr && events->has_key)
        key = Argument::of_bytes(cstring_to_text_with_len(events->key.data(), static_cast<int>(events->key.size())));
    else if (events != nullptr)
        ids = array_of(events->events);
    run_query(
        "INSERT INTO eventbus.cursor (route_id, source, parked_key, key, event_ids) "
        "SELECT id, source, $2, convert_from($3, 'UTF8'), $4 FROM eventbus.route_config WHERE id = $1 RETURNING ctid",
        {Argument::of(row->route_id), Argument::of(row->parked_key), key, ids});
    if (SPI_processed != 1) return false;
    row->at = row_at(1);
    row->exists = true;
    return true;
}

bool update(Row* row, OwnColumns& own, std::span<const Argument> values, const char* place, const ParkedEvents* events,
            bool at_place) {
    const Counters& counters = row->counters;
    Prepared& statement = at_place ? own.at_place : own.anywhere;
    Argument params[Prepared::most];
    const Argument common[] = {Argument::of(row->route_id),
                               Argument::of(row->parked_key),
                               Argument{TIDOID, PointerGetDatum(&row->at), false},
                               Argument::of(place),
                               events != nullptr ? array_of(events->settled) : Argument::null_of(TEXTARRAYOID),
                               Argument::of(counters.delivered),
                               Argument::of(counters.dead),
                               Argument::of(counters.retries),
                               Argument::of(counters.skipped),
                               Argument::of_time(counters.last_delivered_at),
                               Argument::of(counters.last_error),
                               Argument::of_time(counters.last_error_at)};
    Argument* end = std::copy(std::begin(common), std::end(common), std::copy(values.begin(), values.end(), params));
    const auto count = static_cast<int>(end - params);
    Assert(own.count == static_cast<int>(values.size()) && count <= Prepared::most);
    if (statement.sql == nullptr) {
        StringInfoData sql;
        initStringInfo(&sql);
        appendStringInfo(&sql, "UPDATE eventbus.cursor SET %s%s", own.assigned, own.count > 0 ? ", " : "");
        int n = own.count + 4;
        for (const char* set :
             {"place = $%d", "settled_ids = $%d", "delivered = $%d", "dead = $%d", "retries = $%d", "skipped = $%d",
              "last_delivered_at = $%d", "last_error = coalesce($%d, last_error)", "last_error_at = $%d"}) {
            if (n > own.count + 4) appendStringInfoString(&sql, ", ");
            appendStringInfo(&sql, set, n++);
        }
        appendStringInfo(&sql, " WHERE route_id = $%d AND parked_key = $%d AND ", own.count + 1, own.count + 2);
        appendStringInfo(&sql, at_place ? "ctid = $%d" : "$%d IS NOT NULL", own.count + 3);
        appendStringInfoString(&sql, " RETURNING ctid");
        statement.sql = MemoryContextStrdup(TopMemoryContext, sql.data);
        for (int i = 0; i < count; ++i) statement.types[i] = params[i].type;
    }
    (void)run_prepared(statement, params, count);
    if (SPI_processed != 1) return false;
    row->at = row_at(1);
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

bool load(int32 route_id, int32 parked_key, const OwnColumns& own, MemoryContext memory, Row* into) {
    *into = Row();
    into->route_id = route_id;
    into->parked_key = parked_key;
    run_query(
        psprintf("SELECT %s%splace, ctid, " COUNTERS " FROM eventbus.cursor WHERE route_id = $1 AND parked_key = $2",
                 own.selected, own.count > 0 ? ", " : ""),
        {Argument::of(route_id), Argument::of(parked_key)}, true);
    if (SPI_processed == 0) return false;
    into->exists = true;
    into->at = row_at(own.count + 2);
    into->counters = counters_at(own.count + 3, memory);
    return true;
}

Counters load_counters(int32 route_id, MemoryContext memory) {
    run_query("SELECT " COUNTERS " FROM eventbus.cursor WHERE route_id = $1 AND parked_key = 0",
              {Argument::of(route_id)}, true);
    return SPI_processed == 0 ? Counters() : counters_at(1, memory);
}

int load_parked_keys(int32 route_id, MemoryContext memory, int32** parked_keys, ParkedEvents** events) {
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
        taken.events = ids_at(i, 3, memory);
        taken.settled = ids_at(i, 4, memory);
    }
    forget_result();
    return count;
}

bool save(Row* row, OwnColumns& own, std::span<const Argument> values, const char* place, const ParkedEvents* events) {
    for (bool at_place : {true, false})
        if (row->exists && update(row, own, values, place, events, at_place)) return true;
    // None yet (a new parked key, a restored dump), unless the route itself is gone.
    return insert(row, events) && update(row, own, values, place, events, true);
}

void remove(const Row& row) {
    run_query("DELETE FROM eventbus.cursor WHERE route_id = $1 AND parked_key = $2",
              {Argument::of(row.route_id), Argument::of(row.parked_key)});
}

}  // namespace eventbus::cursors
