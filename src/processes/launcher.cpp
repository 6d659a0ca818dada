// What it is: the launcher, one a cluster: a keeper for each database that may have the extension.
// Who calls it: the postmaster, once recovery is over; after a crash of its own again after 5 s.
// Never: connects to a database; it looks at shared catalogs only.
//
// What happens, and what it does:
//   server starts                   every database that takes connections is looked at once, two at a time, by a
//                                   keeper that leaves at once where there is no extension
//   CREATE EXTENSION commits        the database is marked (wake.cpp), a keeper starts; aborts: nothing
//   DROP EXTENSION commits          the keeper is woken, stops its senders and leaves; aborts: it continues
//   CREATE DATABASE … TEMPLATE x    x's workers leave for as long as the command runs (utility_hook.cpp), and come back
//                                   whether it commits or aborts; the new database is looked at
//   DROP DATABASE x, ALTER … RENAME the same; after a commit of the drop nothing comes back
//   a keeper dies                   it is started again, also when it had not looked yet; with back-off where nobody
//                                   has asked it to leave (SIGTERM); its senders continue meanwhile
#include "core/backoff.hpp"
#include "counters/worker_slots.hpp"
#include "postgres/home.hpp"
#include "postgres/query.hpp"
#include "postgres/steady.hpp"
#include "processes/process.hpp"
#include "processes/sleep.hpp"
#include "settings/settings.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/tableam.h"
#include "catalog/pg_database.h"
#include "nodes/pg_list.h"
#include "utils/backend_status.h"
}

namespace eventbus::processes {

namespace {

struct Keeper {
    Oid database;
    NameData name;
    BackgroundWorkerHandle* handle;  // of the one we started, while it is not known to be gone
    bool looked;                     // by a keeper of ours, which found no extension
    bool must_run;
    bool warned;
    bool has_extension;  // a keeper has said so
    SteadyTime started_at;
    SteadyTime retry_at;
    Backoff backoff{Backoff::Duration(1000), Backoff::Duration(60000)};
};

List* keepers = NIL;
constexpr int most_at_once = 2;  // keepers that are only looking

Keeper* keeper_of(Oid database) {
    ListCell* cell;
    foreach (cell, keepers) {
        auto* keeper = static_cast<Keeper*>(lfirst(cell));
        if (keeper->database == database) return keeper;
    }
    MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
    auto* keeper = new (palloc0(sizeof(Keeper))) Keeper();
    keeper->database = database;
    keepers = lappend(keepers, keeper);
    MemoryContextSwitchTo(before);
    return keeper;
}

// The databases that take connections.
List* list_databases() {
    List* oids = NIL;
    MemoryContext keep = CurrentMemoryContext;
    StartTransactionCommand();
    (void)GetTransactionSnapshot();
    Relation rel = table_open(DatabaseRelationId, AccessShareLock);
    TableScanDesc scan = table_beginscan_catalog(rel, 0, nullptr);
    while (HeapTuple tuple = heap_getnext(scan, ForwardScanDirection)) {
        auto database = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple));
        if (!database->datallowconn || database->datconnlimit == -2) continue;  // -2: half dropped
        MemoryContext before = MemoryContextSwitchTo(keep);
        oids = lappend_oid(oids, database->oid);
        MemoryContextSwitchTo(before);
        keeper_of(database->oid)->name = database->datname;  // it may have been renamed
    }
    table_endscan(scan);
    table_close(rel, AccessShareLock);
    CommitTransactionCommand();
    MemoryContextSwitchTo(keep);
    return oids;
}

void forget_dropped(List* databases) {
    for (counters::Database& database : counters::shared()->databases) {
        if (database.oid == InvalidOid || list_member_oid(databases, database.oid)) continue;
        counters::Pids pids;
        if (counters::pids_of_workers(database.oid, pids) > 0) continue;
        counters::free_route(database.oid, 0);
        counters::free_database(&database);
    }
    ListCell* cell;
    foreach (cell, keepers) {
        auto* keeper = static_cast<Keeper*>(lfirst(cell));
        if (list_member_oid(databases, keeper->database) || keeper->handle != nullptr) continue;
        keepers = foreach_delete_current(keepers, cell);
        pfree(keeper);
    }
}

void warn_no_room(Keeper* keeper, counters::Database* database) {
    database->missing_workers = 1;
    database->wanted_decoders = 0;
    if (!keeper->warned)
        ereport(WARNING,
                (errmsg("pg_eventbus cannot start a keeper for database %s: no background worker slot is free",
                        NameStr(keeper->name)),
                 errdetail("%s; it is tried again every 5 s. max_worker_processes is %d.",
                           keeper->has_extension ? "Its events wait" : "If it has the extension, its events wait",
                           max_worker_processes),
                 errhint("Set max_worker_processes to at least %d (the launcher, and for each database a "
                         "keeper, a sender for each broker, and a decoder for each with routes from the "
                         "WAL) and restart the server.",
                         counters::wanted_worker_processes())));
    keeper->warned = true;
}

// Looks after one database; returns when it wants to be looked at again (0: whenever somebody wakes us).
SteadyTime tend(Oid oid, int* starting) {
    static bool warned_full = false;
    Keeper* keeper = keeper_of(oid);
    // A database without the extension keeps no place; CREATE EXTENSION makes one again at its commit.
    counters::Database* database = counters::find_database(oid, !keeper->looked);
    if (database == nullptr && keeper->looked) return 0;
    if (database == nullptr) {
        if (!warned_full)
            ereport(WARNING, (errmsg("pg_eventbus serves at most %d databases of a cluster", counters::max_databases),
                              errdetail("Events of further databases wait in their logs until one of those goes."),
                              errhint("Drop the extension where it is not needed.")));
        warned_full = true;
        return 0;
    }
    SteadyTime now = steady_now();

    if (keeper->handle != nullptr) {
        ChildState state = state_of(keeper->handle);
        if (state != ChildState::gone) {
            if (!database->has_extension) ++*starting;
            return 0;
        }
        pfree(keeper->handle);
        keeper->handle = nullptr;
        keeper->must_run = !database->no_extension;
        if (ms_have_passed(keeper->started_at, now, 60000) ||
            counters::left_when_asked(counters::WorkerKind::keeper, oid, 0))
            keeper->backoff.reset();
        if (keeper->must_run && database->suspended_by == 0)
            keeper->retry_at = plus_ms(now, keeper->backoff.next(static_cast<uint32>(now)).count());
    }
    if (counters::pid_of_keeper(oid) != 0)
        return plus_ms(now, 1000);  // of an earlier launcher: nobody will tell us when it leaves
    if (database->suspended_by != 0) {
        keeper->must_run = true;
        return plus_ms(now, 1000);
    }
    bool look = database->look;
    if (!look && !keeper->must_run) {
        if (!counters::free_if_unwanted(database)) return plus_ms(now, 1000);
        keeper->looked = true;
        return 0;
    }
    if (!look && now < keeper->retry_at) return keeper->retry_at;
    if (*starting >= most_at_once) return plus_ms(now, 50);

    database->look = false;
    if (database->has_extension) keeper->has_extension = true;
    if (database->no_extension) keeper->has_extension = false;
    database->has_extension = false;
    database->no_extension = false;
    keeper->started_at = now;
    keeper->handle = start_keeper(oid);
    if (keeper->handle == nullptr) {
        warn_no_room(keeper, database);
        keeper->must_run = true;
        keeper->retry_at = plus_ms(now, 5000);
        return keeper->retry_at;
    }
    database->missing_workers = 0;
    database->wanted_decoders = 0;
    keeper->warned = false;
    ++*starting;
    return 0;
}

// Every database has been looked at since pg_upgrade: those whose brokers it brought have taken them over.
void forget_upgrade_if_over(List* databases) {
    static bool may_be = true;
    if (!may_be || !was_upgraded()) {
        may_be = false;
        return;
    }
    ListCell* cell;
    foreach (cell, databases) {
        if (keeper_of(lfirst_oid(cell))->looked) continue;
        const counters::Database* database = counters::find_database(lfirst_oid(cell), false);
        if (database == nullptr || (!database->has_extension && !database->no_extension)) return;
        if (database->other_version) return;
    }
    forget_upgrade();
}

void detach(int, Datum) {
    counters::shared()->launcher_pid = 0;
}

}  // namespace

}  // namespace eventbus::processes

using namespace eventbus;
using namespace eventbus::processes;

extern "C" PGDLLEXPORT void eventbus_launcher_main(Datum) {
    set_up_signals(OnSigterm::leave_waits);
    counters::shared()->launcher_proc_number = compat::my_proc_number();
    counters::shared()->launcher_pid = MyProcPid;
    before_shmem_exit(detach, 0);
    connect_to(InvalidOid);
    // An earlier launcher's keepers may have died with it: look at every database again.
    for (counters::Database& database : counters::shared()->databases) database.look = true;

    MemoryContext round = AllocSetContextCreate(TopMemoryContext, "pg_eventbus launcher", ALLOCSET_DEFAULT_SIZES);
    for (;;) {
        if (stop_requested()) proc_exit(1);  // not 0: that would mean never again
        CHECK_FOR_INTERRUPTS();
        reload_if_requested();

        MemoryContextSwitchTo(round);
        List* databases = list_databases();
        forget_dropped(databases);
        int starting = 0;
        SteadyTime now = steady_now();
        SteadyTime next = plus_ms(now, 60000);
        ListCell* cell;
        foreach (cell, databases) {
            SteadyTime want = tend(lfirst_oid(cell), &starting);
            if (want != 0 && want < next) next = want;
        }
        forget_upgrade_if_over(databases);
        MemoryContextReset(round);
        pgstat_report_activity(STATE_IDLE, "waiting for databases and extensions to come and go");
        sleep_on_latch(std::max<long>(1, ms_until(next)), "EventbusLauncherMain");
    }
}
