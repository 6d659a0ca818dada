// What it is: dead letters as they are sent again or discarded: see dead_letters.hpp.
// Who calls it: the sender; operators, by the functions redeliver and discard.
// Never: touches the log: a dead letter is kept whole.
#include "catalog/dead_letters.hpp"

#include "catalog/arguments.hpp"
#include "catalog/names.hpp"
#include "intake/wake.hpp"
#include "postgres/attempt.hpp"
#include "postgres/encoding.hpp"
#include "postgres/query.hpp"
#include "postgres/rights.hpp"
#include "postgres/version.hpp"

namespace eventbus::catalog {

namespace {

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

namespace {

// A text of the table as a guest gets it. One that a broker cannot be given is told in the event's error.
std::string_view utf8_at(uint64 row, int column, MemoryContext memory, Event* event) {
    std::string_view text = view_at(row, column, memory);
    MemoryContext caller = MemoryContextSwitchTo(memory);
    bool whole;
    std::string_view made = database_is_utf8() ? text : to_utf8_or_marks(text, &whole);
    if (!database_is_utf8() && !whole) event->error = to_utf8_or_marks(bad_character(text, convertible(text)).words);
    MemoryContextSwitchTo(caller);
    return made;
}

int read_requeued(int32 route_id, int64 after_id, int most, int64 most_bytes, Event** events, MemoryContext memory) {
    run_query(
        "SELECT event_id, published_at, topic, key, coalesce(headers_text, headers::text), content_type, payload_text, "
        "payload_bytes, lsn, number FROM (SELECT *, sum(bytes) OVER (ORDER BY event_id) - bytes AS before FROM (SELECT "
        "*, coalesce(octet_length(payload_text), octet_length(payload_bytes), 0) + "
        "coalesce(octet_length(headers_text), octet_length(headers::text), 0) AS bytes FROM eventbus.dead_letter_store "
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

// The first one that can be read. Those before it, of which the table has lost a part, are not sent again.
int read_first_sound(int32 route_id, int64 after_id, Event** events, MemoryContext memory) {
    for (;;) {
        int count = 0;
        const ErrorData* error = attempt([&] { count = read_requeued(route_id, after_id, 1, 1, events, memory); });
        if (error == nullptr) return count;
        run_query(
            "UPDATE eventbus.dead_letter_store d SET requeued = false, incomplete = true, error = $3 || d.error "
            "FROM (SELECT event_id FROM eventbus.dead_letter_store WHERE route_id = $1 AND event_id > $2 AND requeued "
            "ORDER BY event_id LIMIT 1) AS bad WHERE d.route_id = $1 AND d.event_id = bad.event_id "
            "RETURNING d.event_id",
            {Argument::of(route_id), Argument::of(after_id),
             Argument::of(static_cast<const char*>(
                 psprintf("it cannot be read any more: %s; it was refused with: ", error_words(error))))});
        if (SPI_processed == 0) return 0;
        after_id = int8_at(0, 1);
    }
}

}  // namespace

int take_requeued(int32 route_id, int64 after_id, int most, int64 most_bytes, Event** events, MemoryContext memory) {
    int count = 0;
    const ErrorData* error =
        attempt([&] { count = read_requeued(route_id, after_id, most, most_bytes, events, memory); });
    return error == nullptr ? count : read_first_sound(route_id, after_id, events, memory);
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
