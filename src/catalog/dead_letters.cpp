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
#include "postgres/wal_end.hpp"

extern "C" {
#include "utils/pg_lsn.h"
}

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

Argument lsn_of(const EventId& id) {
    return {LSNOID, LSNGetDatum(id.lsn), false};
}

// Those of a route (or all), and of an event (or all).
#define THESE "($1 IS NULL OR route_id = $1) AND ($2 IS NULL OR (lsn, number) = ($2, $3))"

// What could not be read as a whole is not sent: receivers would take it for the event.
void tell_of_incomplete(std::initializer_list<Argument> these) {
    run_query("SELECT count(*) FROM eventbus.dead_letter_store WHERE " THESE " AND incomplete AND NOT requeued", these);
    int64 left = int8_at(0, 1);
    if (left > 0)
        ereport(
            NOTICE,
            (left == 1 ? errmsg("1 dead letter is not sent again: it is not the whole event")
                       : errmsg(INT64_FORMAT " dead letters are not sent again: they are not the whole event", left),
             errhint("Column error of eventbus.dead_letter says why. Publish again from where it came, then "
                     "eventbus.discard.")));
}

// NULL does not mean all: column event_id is NULL for events from the WAL, and so is a subselect that finds nothing.
void need_id(FunctionCallInfo fcinfo, const char* name) {
    if (!PG_ARGISNULL(1)) return;
    ereport(ERROR,
            (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s is null", name),
             errhint("Column id of eventbus.dead_letter names every dead letter; column event_id is NULL for events "
                     "from the WAL. For all dead letters of a route leave the argument out.")));
}

// What the second argument names; nullopt: it was left out, all are meant (its default is 0).
std::optional<EventId> number_given(FunctionCallInfo fcinfo) {
    need_id(fcinfo, "event_id");
    if (PG_GETARG_INT64(1) == 0) return std::nullopt;
    return EventId::of_log(PG_GETARG_INT64(1));
}

std::optional<EventId> text_given(FunctionCallInfo fcinfo) {
    need_id(fcinfo, "id");
    const char* given = text_to_cstring(PG_GETARG_TEXT_PP(1));
    std::optional<EventId> id = read_event_id(given);
    char shown[64];
    copy_text(shown, sizeof shown, given);
    if (!id)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid event id \"%s\"", shown),
                        errhint("An event of the log has a number, such as 17, one of the WAL a place, such as "
                                "0/16B3748-3: see column id of eventbus.dead_letter.")));
    return id;
}

int64 change(FunctionCallInfo fcinfo, const std::optional<EventId>& id, const char* statement, bool whole_ones) {
    char* route = optional_text(fcinfo, 0);
    SPI_connect();
    need_our_version("change dead letters");
    const Caller caller = become_owner(fcinfo);
    Argument route_id = route == nullptr ? Argument::null_of(INT4OID) : Argument::of(find_route(route, Hold::share));
    const auto these = {route_id, id ? lsn_of(*id) : Argument::null_of(LSNOID), Argument::of(id ? id->number : 0)};
    uint64 count = run_query(
        psprintf("%s WHERE " THESE "%s", statement, whole_ones ? " AND NOT requeued AND NOT incomplete" : ""), these);
    if (whole_ones) tell_of_incomplete(these);
    finish_as_owner(caller);
    if (count > 0) intake::configuration_changed();  // a sender may have them
    return static_cast<int64>(count);
}

int64 redeliver(FunctionCallInfo fcinfo, const std::optional<EventId>& id) {
    return change(fcinfo, id, "UPDATE eventbus.dead_letter_store SET requeued = true", true);
}

int64 discard(FunctionCallInfo fcinfo, const std::optional<EventId>& id) {
    return change(fcinfo, id, "DELETE FROM eventbus.dead_letter_store", false);
}

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

EventId id_at(int row) {
    bool null;
    return {DatumGetLSN(datum_at(static_cast<uint64>(row), 1, &null)), int8_at(static_cast<uint64>(row), 2)};
}

int read_requeued(int32 route_id, const EventId& after, int most, int64 most_bytes, Event** events,
                  MemoryContext memory) {
    run_query(
        "SELECT lsn, number, published_at, topic, key, coalesce(headers_text, headers::text), content_type, "
        "payload_text, payload_bytes FROM (SELECT *, sum(bytes) OVER (ORDER BY lsn, number) - bytes AS before FROM "
        "(SELECT *, coalesce(octet_length(payload_text), octet_length(payload_bytes), 0) + "
        "coalesce(octet_length(headers_text), octet_length(headers::text), 0) AS bytes FROM eventbus.dead_letter_store "
        "WHERE route_id = $1 AND (lsn, number) > ($2, $3) AND requeued ORDER BY lsn, number LIMIT $4) AS taken) "
        "AS sized WHERE before < $5 ORDER BY lsn, number",
        {Argument::of(route_id), lsn_of(after), Argument::of(after.number), Argument::of(static_cast<int64>(most)),
         Argument::of(most_bytes)});
    auto count = static_cast<int>(SPI_processed);
    *events = static_cast<Event*>(MemoryContextAlloc(memory, sizeof(Event) * (count + 1)));
    for (int i = 0; i < count; ++i) {
        Event* event = new (&(*events)[i]) Event();
        event->id = id_at(i);
        event->published_at = to_unix_us(time_at(i, 3));
        event->topic = utf8_at(i, 4, memory, event);
        if (!is_null_at(i, 5)) event->key = utf8_at(i, 5, memory, event);
        event->headers = utf8_at(i, 6, memory, event);
        event->content_type = utf8_at(i, 7, memory, event);
        event->is_bytes = !is_null_at(i, 9);
        event->payload = event->is_bytes ? view_at(i, 9, memory) : utf8_at(i, 8, memory, event);
    }
    return count;
}

// The first one that can be read. Those before it, of which the table has lost a part, are not sent again.
int read_first_sound(int32 route_id, EventId after, Event** events, MemoryContext memory) {
    for (;;) {
        int count = 0;
        const ErrorData* error = attempt([&] { count = read_requeued(route_id, after, 1, 1, events, memory); });
        if (error == nullptr) return count;
        run_query(
            "UPDATE eventbus.dead_letter_store d SET requeued = false, incomplete = true, error = $4 || d.error "
            "FROM (SELECT lsn, number FROM eventbus.dead_letter_store WHERE route_id = $1 AND (lsn, number) > ($2, $3) "
            "AND requeued ORDER BY lsn, number LIMIT 1) AS bad WHERE d.route_id = $1 AND d.lsn = bad.lsn AND "
            "d.number = bad.number RETURNING d.lsn, d.number",
            {Argument::of(route_id), lsn_of(after), Argument::of(after.number),
             Argument::of(static_cast<const char*>(
                 psprintf("it cannot be read any more: %s; it was refused with: ", error_words(error))))});
        if (SPI_processed == 0) return 0;
        after = id_at(0);
    }
}

}  // namespace

int take_requeued(int32 route_id, const EventId& after, int most, int64 most_bytes, Event** events,
                  MemoryContext memory) {
    int count = 0;
    const ErrorData* error = attempt([&] { count = read_requeued(route_id, after, most, most_bytes, events, memory); });
    return error == nullptr ? count : read_first_sound(route_id, after, events, memory);
}

int64 count_requeued(int32 route_id, const EventId* ids, int count) {
    StringInfoData query;
    initStringInfo(&query);
    appendStringInfoString(&query,
                           "SELECT count(*) FROM eventbus.dead_letter_store WHERE route_id = $1 AND requeued "
                           "AND (lsn, number) IN (");
    for (int i = 0; i < count; ++i)
        appendStringInfo(&query, "%s('%s', " INT64_FORMAT ")", i > 0 ? ", " : "", lsn_text(ids[i].lsn), ids[i].number);
    appendStringInfoChar(&query, ')');
    run_query(query.data, {Argument::of(route_id)});
    return int8_at(0, 1);
}

void forget_dead_letter(int32 route_id, const EventId& id) {
    run_query("DELETE FROM eventbus.dead_letter_store WHERE route_id = $1 AND lsn = $2 AND number = $3 AND requeued",
              {Argument::of(route_id), lsn_of(id), Argument::of(id.number)});
}

}  // namespace eventbus::catalog

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_redeliver);
EVENTBUS_SQL_FUNCTION(eventbus_redeliver_text);
EVENTBUS_SQL_FUNCTION(eventbus_discard);
EVENTBUS_SQL_FUNCTION(eventbus_discard_text);
}

using namespace eventbus::catalog;

Datum eventbus_redeliver(PG_FUNCTION_ARGS) {
    PG_RETURN_INT64(redeliver(fcinfo, number_given(fcinfo)));
}

Datum eventbus_redeliver_text(PG_FUNCTION_ARGS) {
    PG_RETURN_INT64(redeliver(fcinfo, text_given(fcinfo)));
}

Datum eventbus_discard(PG_FUNCTION_ARGS) {
    PG_RETURN_INT64(discard(fcinfo, number_given(fcinfo)));
}

Datum eventbus_discard_text(PG_FUNCTION_ARGS) {
    PG_RETURN_INT64(discard(fcinfo, text_given(fcinfo)));
}
