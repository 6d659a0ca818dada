// What it is: adopt: what has come here by a dump or a copy is this database's; home: how it is told.
// Who calls it: operators, in SQL, and the update from 0.1.
// Never: delivers, or moves the cursor of a route of a broker that is at home already.
#include "catalog/arguments.hpp"
#include "catalog/routes_gone.hpp"
#include "catalog/wal_right.hpp"
#include "postgres/home.hpp"
#include "postgres/query.hpp"
#include "source/log/cursors.hpp"
#include "source/wal/slot.hpp"
#include "source/wal/wal_cursors.hpp"

extern "C" {
#include "storage/lmgr.h"
}

namespace eventbus::catalog {

namespace {

struct Adopted {
    int32 id;
    const char* name;
    int32 broker_id;
    bool from_wal;
    bool has_cursor;
    const char* waits;  // "3 events"; nullptr: nothing
};

struct AdoptedRoutes {
    Adopted* items;
    int count;
};

AdoptedRoutes read_routes(const char* home) {
    run_query(
        "SELECT r.id, r.name, r.broker_id, r.source = 'wal', EXISTS (SELECT FROM eventbus.cursor c WHERE c.route_id = "
        "r.id), "
        "CASE WHEN events_waiting > 0 THEN " EVENTBUS_EVENTS_WAITING
        " END "
        "FROM eventbus.route_config r JOIN eventbus.broker_config b ON b.id = r.broker_id "
        "LEFT JOIN eventbus.delivery_status() s ON s.route_id = r.id WHERE b.home IS DISTINCT FROM $1 ORDER BY r.name",
        {Argument::of(home)});
    AdoptedRoutes routes = {static_cast<Adopted*>(palloc(sizeof(Adopted) * (SPI_processed + 1))),
                            static_cast<int>(SPI_processed)};
    for (int i = 0; i < routes.count; ++i)
        routes.items[i] = {int4_at(i, 1), text_at(i, 2), int4_at(i, 3), bool_at(i, 4), bool_at(i, 5), text_at(i, 6)};
    return routes;
}

// As if the route were made now; what it has counted stays. Of a restored dump there is no cursor yet.
void begin_now(const Adopted& route) {
    run_query("SELECT delivered, dead, retries, skipped FROM eventbus.cursor WHERE route_id = $1 AND parked_key = 0",
              {Argument::of(route.id)});
    int64 counted[4] = {};
    for (int i = 0; i < 4 && SPI_processed > 0; ++i) counted[i] = int8_at(0, i + 1);
    run_query("DELETE FROM eventbus.cursor WHERE route_id = $1", {Argument::of(route.id)});
    if (route.from_wal)
        wal::make_cursor(route.id);
    else
        log::make_cursor(route.id, false);
    run_query("UPDATE eventbus.cursor SET delivered = $2, dead = $3, retries = $4, skipped = $5 WHERE route_id = $1",
              {Argument::of(route.id), Argument::of(counted[0]), Argument::of(counted[1]), Argument::of(counted[2]),
               Argument::of(counted[3])});
}

// What redeliver had put back, and no sender has sent: dead letters as before.
void take_back_letters(const char* home) {
    run_query(
        "WITH back AS (UPDATE eventbus.dead_letter_store d SET requeued = false FROM eventbus.route_config r JOIN "
        "eventbus.broker_config b ON b.id = r.broker_id WHERE r.id = d.route_id AND d.requeued AND "
        "b.home IS DISTINCT FROM $1 RETURNING r.name) SELECT name, count(*) FROM back GROUP BY name ORDER BY name",
        {Argument::of(home)});
    for (uint64 i = 0; i < SPI_processed; ++i) {
        const int64 count = int8_at(i, 2);
        ereport(NOTICE, (errmsg("route \"%s\" leaves out " INT64_FORMAT " dead letter%s that redeliver had put back",
                                text_at(i, 1), count, count == 1 ? "" : "s"),
                         errdetail("They are in the view eventbus.dead_letter again.")));
    }
}

void adopt_route(const Adopted& route, bool at_cursor) {
    if (route.from_wal) {
        const wal::SlotState slot = wal::look_up_slot(wal::slot_name(MyDatabaseId, route.broker_id));
        if (at_cursor && slot.exists && !slot.lost && slot.alien == nullptr) {
            ereport(NOTICE, (errmsg("route \"%s\" resumes at its place in the WAL", route.name)));
            return;
        }
        if (route.has_cursor) begin_now(route);
        ereport(NOTICE, (errmsg("route \"%s\" begins again with what commits from now on", route.name),
                         errdetail(at_cursor ? "Its replication slot did not come along: what it had not delivered in "
                                               "the WAL is left out."
                                             : "What it had not delivered in the WAL is left out.")));
        return;
    }
    if (route.waits != nullptr)
        ereport(NOTICE, (at_cursor ? errmsg("route \"%s\" delivers %s that waited", route.name, route.waits)
                                   : errmsg("route \"%s\" leaves out %s that waited", route.name, route.waits),
                         at_cursor ? errdetail("The original may have delivered them as well.") : 0));
    if (!at_cursor) begin_now(route);
}

}  // namespace

}  // namespace eventbus::catalog

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_adopt);
EVENTBUS_SQL_FUNCTION(eventbus_home);
}

using namespace eventbus;
using namespace eventbus::catalog;

Datum eventbus_adopt(PG_FUNCTION_ARGS) {
    const char* start = required_text(fcinfo, 0, "adopt", "start");
    const bool at_cursor = strcmp(start, "cursor") == 0;
    if (!at_cursor && strcmp(start, "now") != 0)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid start: \"%s\"", start),
                        errhint("It is 'cursor' (what waits is delivered) or 'now' (it is left out).")));
    const Caller caller = connect_as_owner(fcinfo);
    char* home = home_of(MyDatabaseId);
    run_query("SELECT FROM eventbus.broker_config WHERE home IS DISTINCT FROM $1 FOR NO KEY UPDATE",
              {Argument::of(static_cast<const char*>(home))});
    const bool any = SPI_processed > 0;
    run_query("SELECT FROM eventbus.route_config FOR KEY SHARE");  // who drops one is waited for
    if (!any) ereport(NOTICE, (errmsg("no broker has come here by a dump or a copy")));
    // As where a route is made: rotation releases nothing that it will want.
    const log::Relations& log = log::relations();
    for (Oid segment : log.segments) LockRelationOid(segment, AccessShareLock);
    if (!at_cursor) take_back_letters(home);
    const AdoptedRoutes routes = read_routes(home);
    for (int i = 0; i < routes.count; ++i)
        if (routes.items[i].from_wal) {
            need_wal_right(caller, routes.items[i].name);
            break;
        }
    if (!at_cursor && routes.count > 0) log::judge_no_earlier_event();  // what is left out had a route
    for (int i = 0; i < routes.count; ++i) adopt_route(routes.items[i], at_cursor);
    run_query("UPDATE eventbus.broker_config SET home = $1 WHERE home IS DISTINCT FROM $1",
              {Argument::of(static_cast<const char*>(home))});
    finish_as_owner(caller);
    PG_RETURN_VOID();
}

Datum eventbus_home(PG_FUNCTION_ARGS) {
    (void)fcinfo;
    PG_RETURN_TEXT_P(cstring_to_text(home_of(MyDatabaseId)));
}
