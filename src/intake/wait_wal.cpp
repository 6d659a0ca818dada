// What it is: eventbus.wait_for_delivery of all that commits before a place in the WAL.
// Who calls it: applications, with pg_current_wal_insert_lsn() after COMMIT.
// Never: tells an event that was delivered from one that became a dead letter.
//
// Cursors of routes from the WAL say what is settled, on the route's own row and on those of its parked keys. Where
// nothing of the WAL is a route's they are not written, and nobody reads what others have written: so the senders are
// told how far to read, and answer when all up to there is settled.
#include "intake/wait.hpp"

#include <algorithm>

#include "postgres/query.hpp"
#include "postgres/wal_end.hpp"

extern "C" {
#include "utils/fmgrprotos.h"
#include "utils/pg_lsn.h"
}

namespace eventbus::intake {

namespace {

[[noreturn]] void refuse_source(const char* route) {
    ereport(ERROR,
            (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("route \"%s\" is not from the WAL", route),
             errdetail("Its events are those of the log, which have ids of their own."),
             errhint("Pass the id that eventbus.publish has returned, or leave out the route to wait for all routes "
                     "from the WAL.")));
    pg_unreachable();
}

// Senders read up to where the WAL ends by now, and not just up to `lsn`, which may lie within a record.
void have_it_read(XLogRecPtr lsn) {
    XLogRecPtr end = end_of_wal();
    if (lsn > end)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("the WAL has not reached %s", lsn_text(lsn)),
                        errdetail("It ends at %s.", lsn_text(end)),
                        errhint("Pass what pg_current_wal_insert_lsn() returns after COMMIT.")));
    if (counters::Database* database = counters::my_database()) counters::tell_wal_readers(database, end);
}

void read_cursors(const Wait& wait) {
    // Not the transaction's snapshot: under REPEATABLE READ nothing would ever change.
    PushActiveSnapshot(GetLatestSnapshot());
    run_query(
        "SELECT r.id, r.source = 'wal', bool_or(c.wal_lost), min(c.wal_lsn) >= $1 FROM eventbus.route_config r "
        "LEFT JOIN eventbus.cursor c ON c.route_id = r.id "
        "WHERE CASE WHEN $2 IS NULL THEN r.source = 'wal' ELSE r.name = $2 END GROUP BY r.id ORDER BY r.id",
        {Argument{LSNOID, LSNGetDatum(wait.id.lsn), false}, Argument::of(wait.route_name)}, true);
    PopActiveSnapshot();
    if (wait.route_name == nullptr) return;
    if (SPI_processed == 0) refuse_route(wait.route_name);
    if (!bool_at(0, 2)) refuse_source(wait.route_name);
}

counters::Answer answer_of_cursors(uint64 row) {
    if (bool_at(row, 3)) return counters::Answer::left_out;
    return bool_at(row, 4) ? counters::Answer::settled : counters::Answer::none;
}

// The routes are those that are there when the call begins.
void choose_routes(Wait* wait, MemoryContext memory) {
    wait->routes = static_cast<WaitedRoute*>(MemoryContextAllocZero(memory, sizeof(WaitedRoute) * (SPI_processed + 1)));
    wait->count = static_cast<int>(SPI_processed);
    for (int i = 0; i < wait->count; ++i)
        wait->routes[i] = {int4_at(static_cast<uint64>(i), 1), counters::Answer::none};
}

Outcome look_at_cursors(Wait* wait) {
    MemoryContext caller = CurrentMemoryContext;
    SPI_connect();
    (void)note_answers(wait);
    read_cursors(*wait);
    if (wait->count < 0) choose_routes(wait, caller);
    Outcome outcome = Outcome::delivered;
    bool any = false;
    for (uint64 row = 0; row < SPI_processed; ++row) {
        WaitedRoute* route = find_waited(*wait, int4_at(row, 1));
        if (route == nullptr) continue;
        any = true;
        if (route->answer == counters::Answer::none) route->answer = answer_of_cursors(row);
        if (route->answer == counters::Answer::none && outcome == Outcome::delivered) outcome = Outcome::pending;
        if (route->answer == counters::Answer::left_out) outcome = Outcome::not_delivered;
    }
    if (!any && wait->route_name != nullptr) refuse_route(wait->route_name);  // one that has its name is another one
    SPI_finish();
    return outcome;
}

bool wait_for_wal(Wait* wait, XLogRecPtr lsn) {
    wait->id.lsn =
        std::max<XLogRecPtr>(before_page_header(lsn), 1);  // 0 would be no place, and nothing commits before 1
    have_it_read(wait->id.lsn);
    return wait_until_settled(wait, look_at_cursors);
}

}  // namespace

}  // namespace eventbus::intake

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_wait_for_delivery_lsn);
EVENTBUS_SQL_FUNCTION(eventbus_wait_for_delivery_text);
}

Datum eventbus_wait_for_delivery_lsn(PG_FUNCTION_ARGS) {
    using namespace eventbus::intake;
    Wait wait = read_wait(fcinfo, "lsn");
    PG_RETURN_BOOL(wait_for_wal(&wait, PG_GETARG_LSN(0)));
}

// Of two forms, for bigint and pg_lsn, PostgreSQL could choose none for a literal, or for a parameter without a type:
// they are texts to it, and a place in the WAL has a slash in it.
Datum eventbus_wait_for_delivery_text(PG_FUNCTION_ARGS) {
    using namespace eventbus::intake;
    Wait wait = read_wait(fcinfo, "event_id");
    char* given = text_to_cstring(PG_GETARG_TEXT_PP(0));
    if (strchr(given, '/') != nullptr)
        PG_RETURN_BOOL(wait_for_wal(&wait, DatumGetLSN(DirectFunctionCall1(pg_lsn_in, CStringGetDatum(given)))));
    wait.id.number = DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(given)));
    PG_RETURN_BOOL(wait_for_event(&wait));
}
