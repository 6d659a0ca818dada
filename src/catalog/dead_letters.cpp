// What it is: see dead_letters.hpp; and the functions redeliver and discard.
// Who calls it: the sender; operators.
// Never: touches the log: a dead letter is kept whole.
#include "catalog/dead_letters.hpp"

#include "catalog/arguments.hpp"
#include "catalog/names.hpp"
#include "intake/wake.hpp"
#include "postgres/query.hpp"

namespace eventbus::catalog {

namespace {

// The guest's UTF-8 in the database's encoding.
Argument stored_text(std::string_view utf8) {
    if (GetDatabaseEncoding() == PG_UTF8) return Argument::of(utf8);
    return Argument::of(static_cast<const char*>(
        pg_any_to_server(pnstrdup(utf8.data(), utf8.size()), static_cast<int>(utf8.size()), PG_UTF8)));
}

// What a broker says may be anything; the database takes only valid text.
Argument foreign_text(std::string_view words) {
    char* text = pnstrdup(words.data(), words.size());
    for (char* c = text; *c != '\0'; ++c)
        if (static_cast<unsigned char>(*c) < 0x20 && *c != '\n' && *c != '\t') *c = '?';
    if (!pg_verifymbstr(text, static_cast<int>(strlen(text)), true))
        for (char* c = text; *c != '\0'; ++c)
            if ((static_cast<unsigned char>(*c) & 0x80) != 0) *c = '?';
    return Argument::of(static_cast<const char*>(text));
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

// Applies a statement to the dead letters of a route (or all) and an event (or all).
int64 change(FunctionCallInfo fcinfo, const char* statement) {
    char* route = optional_text(fcinfo, 0);
    Argument id = PG_ARGISNULL(1) ? Argument::null_of(INT8OID) : Argument::of(static_cast<int64>(PG_GETARG_INT64(1)));
    SPI_connect();
    Argument route_id = route == nullptr ? Argument::null_of(INT4OID) : Argument::of(find_route(route, Hold::share));
    uint64 count =
        run_query(psprintf("%s WHERE NOT requeued AND ($1 IS NULL OR route_id = $1) AND ($2 IS NULL OR event_id = $2)",
                           statement),
                  {route_id, id});
    SPI_finish();
    return static_cast<int64>(count);
}

}  // namespace

void store_dead_letter(int32 route_id, const Event& event, std::string_view error, int32 attempts) {
    Argument text = event.is_bytes ? Argument::null_of(TEXTOID) : stored_text(event.payload);
    Argument bytes = Argument::null_of(BYTEAOID);
    if (event.is_bytes) {
        auto* copy = static_cast<bytea*>(palloc(event.payload.size() + VARHDRSZ));
        SET_VARSIZE(copy, event.payload.size() + VARHDRSZ);
        memcpy(VARDATA(copy), event.payload.data(), event.payload.size());
        bytes = Argument::of_bytes(copy);
    }
    run_query(
        "INSERT INTO eventbus.dead_letter_store AS d (route_id, event_id, topic, key, headers, content_type, "
        "payload_text, "
        "payload_bytes, published_at, error, attempts, failed_at, lsn, number) "
        "SELECT id, $2, $3, $4, $5::jsonb, $6, $7, $8, $9, $10, $11, clock_timestamp(), $12, $13 FROM "
        "eventbus.route_config "
        "WHERE id = $1 "
        "ON CONFLICT (route_id, event_id) DO UPDATE SET error = excluded.error, attempts = d.attempts + "
        "excluded.attempts, "
        "failed_at = excluded.failed_at, requeued = false",
        {Argument::of(route_id), Argument::of(event.id), stored_text(event.topic),
         event.key ? stored_text(*event.key) : Argument::null_of(TEXTOID),
         event.headers.empty() ? Argument::null_of(TEXTOID) : stored_text(event.headers),
         stored_text(event.content_type), text, bytes, Argument::of_time(from_unix_us(event.published_at)),
         foreign_text(error), Argument::of(attempts), Argument{LSNOID, UInt64GetDatum(event.lsn), event.lsn == 0},
         Argument{INT8OID, Int64GetDatum(event.number), event.lsn == 0}});
}

int take_requeued(int32 route_id, int64 after_id, int most, Event** events, MemoryContext memory) {
    run_query(
        "SELECT event_id, published_at, convert_to(topic, 'UTF8'), convert_to(key, 'UTF8'), convert_to(headers::text, "
        "'UTF8'), "
        "convert_to(content_type, 'UTF8'), coalesce(payload_bytes, convert_to(payload_text, 'UTF8')), payload_bytes IS "
        "NOT NULL, lsn, number "
        "FROM eventbus.dead_letter_store WHERE route_id = $1 AND event_id > $2 AND requeued ORDER BY event_id LIMIT $3",
        {Argument::of(route_id), Argument::of(after_id), Argument::of(static_cast<int64>(most))});
    auto count = static_cast<int>(SPI_processed);
    *events = static_cast<Event*>(MemoryContextAlloc(memory, sizeof(Event) * (count + 1)));
    for (int i = 0; i < count; ++i) {
        Event* event = new (&(*events)[i]) Event();
        event->id = int8_at(i, 1);
        event->published_at = to_unix_us(time_at(i, 2));
        event->topic = view_at(i, 3, memory);
        if (!is_null_at(i, 4)) event->key = view_at(i, 4, memory);
        event->headers = view_at(i, 5, memory);
        event->content_type = view_at(i, 6, memory);
        event->payload = view_at(i, 7, memory);
        event->is_bytes = bool_at(i, 8);
        bool null;
        Datum lsn = datum_at(i, 9, &null);
        event->lsn = null ? 0 : DatumGetUInt64(lsn);
        event->number = int8_at(i, 10);
    }
    return count;
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
    int64 count = eventbus::catalog::change(fcinfo, "UPDATE eventbus.dead_letter_store SET requeued = true");
    if (count > 0) eventbus::intake::configuration_changed();
    PG_RETURN_INT64(count);
}

Datum eventbus_discard(PG_FUNCTION_ARGS) {
    PG_RETURN_INT64(eventbus::catalog::change(fcinfo, "DELETE FROM eventbus.dead_letter_store"));
}
