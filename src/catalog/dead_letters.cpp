// What it is: see dead_letters.hpp; and the functions redeliver and discard.
// Who calls it: the sender; operators.
// Never: touches the log: a dead letter is kept whole.
#include "catalog/dead_letters.hpp"

#include <algorithm>

#include "catalog/arguments.hpp"
#include "catalog/names.hpp"
#include "intake/wake.hpp"
#include "postgres/attempt.hpp"
#include "postgres/encoding.hpp"
#include "postgres/query.hpp"
#include "postgres/rights.hpp"
#include "postgres/version.hpp"

extern "C" {
#include "utils/array.h"
#include "utils/lsyscache.h"
}

namespace eventbus::catalog {

namespace {

// The guest's UTF-8 in the database's encoding.
Argument stored_text(std::string_view utf8, bool* whole) {
    bool is_whole;
    Argument stored = Argument::of(static_cast<const char*>(from_utf8(utf8, &is_whole)));
    *whole = *whole && is_whole;
    return stored;
}

// What a broker says may be anything.
Argument stored_error(std::string_view words) {
    char* text = from_utf8(words);
    for (char* c = text; *c != '\0'; ++c)
        if (static_cast<unsigned char>(*c) < 0x20 && *c != '\n' && *c != '\t') *c = '?';
    return Argument::of(static_cast<const char*>(text));
}

Argument stored_bytes(std::string_view bytes) {
    auto* copy = static_cast<bytea*>(palloc(bytes.size() + VARHDRSZ));
    SET_VARSIZE(copy, bytes.size() + VARHDRSZ);
    bytes.copy(VARDATA(copy), bytes.size());
    return Argument::of_bytes(copy);
}

constexpr Oid column_types[] = {INT4OID,  INT8OID,        TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
                                BYTEAOID, TIMESTAMPTZOID, TEXTOID, INT4OID, LSNOID,  INT8OID, BOOLOID};
constexpr int column_count = lengthof(column_types);

// What of a letter the table cannot take, and why. Headers that are JSON need be no jsonb: a NUL within a text.
enum class Without : std::uint8_t { nothing, headers, headers_and_payload };
struct Left {
    Without out;
    const char* why;
};

// What the table holds of a letter.
void fill(Argument* columns, const DeadLetter& letter, const Left& left) {
    const Event& event = *letter.event;
    bool whole = event.error.empty() && left.out == Without::nothing;
    bool has_payload = left.out != Without::headers_and_payload && (event.error.empty() || !event.payload.empty());
    Argument topic = stored_text(event.topic.empty() ? "?" : event.topic, &whole);
    Argument key = event.key ? stored_text(*event.key, &whole) : Argument::null_of(TEXTOID);
    Argument type = stored_text(event.content_type, &whole);
    Argument headers = Argument::null_of(TEXTOID);
    if (left.out == Without::nothing && !event.headers.empty()) headers = stored_text(event.headers, &whole);
    // A text that the database has no characters for is kept as the bytes that it is.
    bool is_text = has_payload && !event.is_bytes;
    Argument text = is_text ? stored_text(event.payload, &is_text) : Argument::null_of(TEXTOID);
    if (!is_text) text = Argument::null_of(TEXTOID);
    Argument bytes = has_payload && !is_text ? stored_bytes(event.payload) : Argument::null_of(BYTEAOID);
    Argument error = stored_error(letter.error);
    if (left.out != Without::nothing)
        error = Argument::of(static_cast<const char*>(
            psprintf("%s (without %s, which could not be stored: %s)", from_utf8(letter.error),
                     left.out == Without::headers ? "headers" : "payload and headers", left.why)));
    const Argument made[column_count] = {
        Argument::of(letter.route_id),
        Argument::of(event.id),
        topic,
        key,
        headers,
        type,
        text,
        bytes,
        Argument{TIMESTAMPTZOID, TimestampTzGetDatum(from_unix_us(event.published_at)), false},
        error,
        Argument::of(letter.attempts),
        {LSNOID, UInt64GetDatum(event.lsn), event.lsn == 0},
        {INT8OID, Int64GetDatum(event.number), event.lsn == 0},
        Argument::of(!whole)};
    std::copy(made, made + column_count, columns);
}

// A letter that the table has already: its event was sent again, or redelivered, and refused again.
enum class Known : std::uint8_t { none, some };

const char* const insert_sql =
    "INSERT INTO eventbus.dead_letter_store AS d (route_id, event_id, topic, key, headers, content_type, "
    "payload_text, payload_bytes, published_at, error, attempts, failed_at, lsn, number, incomplete) "
    "SELECT n.route_id, n.event_id, n.topic, n.key, n.headers::pg_catalog.jsonb, n.content_type, n.payload_text, "
    "n.payload_bytes, n.published_at, n.error, n.attempts, pg_catalog.clock_timestamp(), n.lsn, n.number, "
    "n.incomplete FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), "
    "pg_catalog.unnest($4), "
    "pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), "
    "pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11), pg_catalog.unnest($12), "
    "pg_catalog.unnest($13), pg_catalog.unnest($14)) AS n "
    "(route_id, event_id, topic, key, headers, content_type, payload_text, payload_bytes, published_at, error, "
    "attempts, lsn, number, incomplete) WHERE n.route_id = ANY (ARRAY("
    "SELECT id FROM eventbus.route_config WHERE id = ANY ($1) FOR KEY SHARE))";
const char* const update_sql =
    " ON CONFLICT (route_id, event_id) DO UPDATE SET error = excluded.error, "
    "attempts = d.attempts + excluded.attempts, failed_at = excluded.failed_at, requeued = false, "
    "incomplete = d.incomplete OR excluded.incomplete";

// All in one statement, for there may be thousands of them: their routes are locked once, and the foreign key's check
// of each row, as dear as storing it, is disabled. So dear is the check for known ones: it is made where there are
// some.
void insert(const DeadLetter* letters, int count, Known known, const Left& left) {
    static Prepared statements[2];
    Prepared& statement = statements[known == Known::some];
    if (statement.sql == nullptr)
        statement.sql =
            MemoryContextStrdup(TopMemoryContext, psprintf("%s%s", insert_sql, known == Known::some ? update_sql : ""));
    auto* cells = static_cast<Argument*>(palloc(sizeof(Argument) * static_cast<Size>(count) * column_count));
    auto* values = static_cast<Datum*>(palloc(sizeof(Datum) * static_cast<Size>(count)));
    auto* nulls = static_cast<bool*>(palloc(sizeof(bool) * static_cast<Size>(count)));
    for (int i = 0; i < count; ++i) fill(cells + i * column_count, letters[i], left);
    Argument arrays[column_count];
    for (int column = 0; column < column_count; ++column) {
        Oid type = column_types[column];
        int16 length;
        bool by_value;
        char alignment;
        get_typlenbyvalalign(type, &length, &by_value, &alignment);
        for (int i = 0; i < count; ++i) {
            values[i] = cells[i * column_count + column].value;
            nulls[i] = cells[i * column_count + column].null;
        }
        int begin = 1;
        arrays[column] = {
            get_array_type(type),
            PointerGetDatum(construct_md_array(values, nulls, 1, &count, &begin, type, length, by_value, alignment)),
            false};
        statement.types[column] = arrays[column].type;
    }
    run_prepared(statement, arrays, column_count);
}

std::string_view view_at(uint64 row, int column, MemoryContext memory) {
    bool null;
    Datum value = datum_at(row, column, &null);
    if (null) return {};
    MemoryContext caller = MemoryContextSwitchTo(memory);
    auto* copy = PG_DETOAST_DATUM_COPY(value);
    MemoryContextSwitchTo(caller);
    return {VARDATA(copy), VARSIZE(copy) - VARHDRSZ};
}

// What could not be read as a whole is not sent: receivers would take it for the event.
void tell_of_incomplete(const Argument& route_id, const Argument& id) {
    run_query(
        "SELECT count(*) FROM eventbus.dead_letter_store WHERE incomplete AND NOT requeued "
        "AND ($1 IS NULL OR route_id = $1) AND ($2 IS NULL OR event_id = $2)",
        {route_id, id});
    int64 left = int8_at(0, 1);
    if (left > 0)
        ereport(
            NOTICE,
            (left == 1 ? errmsg("1 dead letter is not sent again: it is not the whole event")
                       : errmsg(INT64_FORMAT " dead letters are not sent again: they are not the whole event", left),
             errhint("Column error of eventbus.dead_letter says why. Publish anew from where it came, then "
                     "eventbus.discard.")));
}

// Applies a statement to the dead letters of a route (or all) and an event (or all).
int64 change(FunctionCallInfo fcinfo, const char* statement, bool whole_ones) {
    char* route = optional_text(fcinfo, 0);
    Argument id = PG_ARGISNULL(1) ? Argument::null_of(INT8OID) : Argument::of(static_cast<int64>(PG_GETARG_INT64(1)));
    SPI_connect();
    need_our_version("change dead letters");
    const Caller caller = become_owner(fcinfo);
    Argument route_id = route == nullptr ? Argument::null_of(INT4OID) : Argument::of(find_route(route, Hold::share));
    uint64 count = run_query(psprintf("%s WHERE ($1 IS NULL OR route_id = $1) AND ($2 IS NULL OR event_id = $2)%s",
                                      statement, whole_ones ? " AND NOT requeued AND NOT incomplete" : ""),
                             {route_id, id});
    if (whole_ones) tell_of_incomplete(route_id, id);
    finish_as_owner(caller);
    return static_cast<int64>(count);
}

}  // namespace

void store_dead_letters(const DeadLetter* letters, int count) {
    constexpr int together = 1000;
    constexpr Size most_bytes = 4 * 1024 * 1024;
    MemoryContext scratch =
        AllocSetContextCreate(CurrentMemoryContext, "pg_eventbus dead letters", ALLOCSET_SMALL_SIZES);
    MemoryContext caller = MemoryContextSwitchTo(scratch);
    for (int first = 0, end = 0; first < count; first = end) {
        Size bytes = 0;
        for (; end < count && end < first + together && (end == first || bytes < most_bytes); ++end)
            bytes += letters[end].event->payload.size() + letters[end].event->headers.size();
        constexpr Left nothing = {Without::nothing, nullptr};
        ErrorData* error = attempt([&] { insert(letters + first, end - first, Known::none, nothing); });
        if (error != nullptr && error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION)
            error = attempt([&] { insert(letters + first, end - first, Known::some, nothing); });
        for (int i = first; error != nullptr && i < end; ++i) {
            ErrorData* own = attempt([&] { insert(letters + i, 1, Known::some, nothing); });
            if (own != nullptr && !letters[i].event->headers.empty())
                own = attempt([&] { insert(letters + i, 1, Known::some, {Without::headers, error_words(own)}); });
            if (own != nullptr) insert(letters + i, 1, Known::some, {Without::headers_and_payload, error_words(own)});
        }
        MemoryContextReset(scratch);
    }
    MemoryContextSwitchTo(caller);
    MemoryContextDelete(scratch);
}

// A text of the table as a guest gets it. One that a broker cannot be given is told in the event's error.
static std::string_view utf8_at(uint64 row, int column, MemoryContext memory, Event* event) {
    std::string_view text = view_at(row, column, memory);
    MemoryContext caller = MemoryContextSwitchTo(memory);
    bool whole;
    std::string_view made = database_is_utf8() ? text : to_utf8_or_marks(text, &whole);
    if (!database_is_utf8() && !whole) event->error = to_utf8_or_marks(bad_character(text, convertible(text)).words);
    MemoryContextSwitchTo(caller);
    return made;
}

int take_requeued(int32 route_id, int64 after_id, int most, int64 most_bytes, Event** events, MemoryContext memory) {
    run_query(
        "SELECT event_id, published_at, topic, key, headers::text, content_type, payload_text, payload_bytes, lsn, "
        "number FROM (SELECT *, sum(bytes) OVER (ORDER BY event_id) - bytes AS before FROM (SELECT *, "
        "coalesce(octet_length(payload_text), octet_length(payload_bytes), 0) + "
        "coalesce(octet_length(headers::text), 0) AS bytes FROM eventbus.dead_letter_store "
        "WHERE route_id = $1 AND event_id > $2 AND requeued ORDER BY event_id LIMIT $3) AS taken) AS sized "
        "WHERE before < $4 ORDER BY event_id",
        {Argument::of(route_id), Argument::of(after_id), Argument::of(static_cast<int64>(most)),
         Argument::of(most_bytes)});
    auto count = static_cast<int>(SPI_processed);
    *events = static_cast<Event*>(MemoryContextAlloc(memory, sizeof(Event) * (count + 1)));
    for (int i = 0; i < count; ++i) {
        Event* event = new (&(*events)[i]) Event();
        event->id = int8_at(i, 1);
        event->published_at = to_unix_us(time_at(i, 2));
        event->topic = utf8_at(i, 3, memory, event);
        if (!is_null_at(i, 4)) event->key = utf8_at(i, 4, memory, event);
        event->headers = utf8_at(i, 5, memory, event);
        event->content_type = utf8_at(i, 6, memory, event);
        event->is_bytes = !is_null_at(i, 8);
        event->payload = event->is_bytes ? view_at(i, 8, memory) : utf8_at(i, 7, memory, event);
        bool null;
        Datum lsn = datum_at(i, 9, &null);
        event->lsn = null ? 0 : DatumGetUInt64(lsn);
        event->number = int8_at(i, 10);
    }
    return count;
}

int64 count_requeued(int32 route_id, const char* ids) {
    run_query(
        "SELECT count(*) FROM eventbus.dead_letter_store WHERE route_id = $1 AND event_id = ANY ($2::bigint[]) "
        "AND requeued",
        {Argument::of(route_id), Argument::of(ids)});
    return int8_at(0, 1);
}

void forget_dead_letter(int32 route_id, int64 event_id) {
    run_query("DELETE FROM eventbus.dead_letter_store WHERE route_id = $1 AND event_id = $2 AND requeued",
              {Argument::of(route_id), Argument::of(event_id)});
}

}  // namespace eventbus::catalog

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_redeliver);
EVENTBUS_SQL_FUNCTION(eventbus_discard);
}

Datum eventbus_redeliver(PG_FUNCTION_ARGS) {
    int64 count = eventbus::catalog::change(fcinfo, "UPDATE eventbus.dead_letter_store SET requeued = true", true);
    if (count > 0) eventbus::intake::configuration_changed();
    PG_RETURN_INT64(count);
}

Datum eventbus_discard(PG_FUNCTION_ARGS) {
    int64 count = eventbus::catalog::change(fcinfo, "DELETE FROM eventbus.dead_letter_store", false);
    if (count > 0) eventbus::intake::configuration_changed();  // a sender may have them
    PG_RETURN_INT64(count);
}
