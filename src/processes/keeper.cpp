// What it is: the keeper, one a database that has the extension: a sender for each broker, and the log's rotation.
// Who calls it: the launcher.
// Never: delivers, or stays where the extension is gone.
#include "catalog/catalog.hpp"
#include "core/backoff.hpp"
#include "counters/worker_slots.hpp"
#include "postgres/home.hpp"
#include "postgres/query.hpp"
#include "postgres/steady.hpp"
#include "postgres/version.hpp"
#include "processes/process.hpp"
#include "processes/sleep.hpp"
#include "processes/upkeep.hpp"
#include "settings/settings.hpp"
#include "source/wal/slot.hpp"

#include <algorithm>
#include <csignal>

extern "C" {
#include "commands/dbcommands.h"
#include "nodes/pg_list.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
}

namespace eventbus::processes {

namespace {

struct Sender {
    int32 broker_id;
    BackgroundWorkerHandle* handle;
    SteadyTime started_at;
    SteadyTime retry_at;
    bool starved;   // max_worker_processes left no room for it
    int64 version;  // of its broker and routes
    Backoff backoff{Backoff::Duration(200), Backoff::Duration(30000)};
};

List* senders = NIL;
counters::Database* database = nullptr;
bool warned_no_room = false;

Sender* sender_of(int32 broker_id) {
    ListCell* cell;
    foreach (cell, senders) {
        auto* sender = static_cast<Sender*>(lfirst(cell));
        if (sender->broker_id == broker_id) return sender;
    }
    MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
    auto* sender = new (palloc0(sizeof(Sender))) Sender();
    sender->broker_id = broker_id;
    senders = lappend(senders, sender);
    MemoryContextSwitchTo(before);
    return sender;
}

void stop_sender(int32 broker_id) {
    if (int pid = counters::pid_of_sender(MyDatabaseId, broker_id)) kill(pid, SIGTERM);
}

struct Brokers {
    int count = 0;  // that are to be served,
    int all = 0;    // and behind them those that are not
    catalog::BrokerVersion* items = nullptr;
    int of_copy = 0;  // of those, that have come here from elsewhere
    char* of_copy_names = nullptr;
    char* setting = nullptr;  // what ALTER DATABASE says of eventbus.delivery
    char* database = nullptr;
    char* version = nullptr;  // of the extension in this database, where it is not the library's
    bool slots_left = false;  // replication slots that nobody needs, and somebody still has
    bool has(int32 id) const {
        for (int i = 0; i < count; ++i)
            if (items[i].id == id) return true;
        return false;
    }
};

char* delivery_of_database(MemoryContext memory) {
    run_query(
        "SELECT string_agg(c, '') FROM pg_db_role_setting, unnest(setconfig) c "
        "WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) AND setrole = 0 "
        "AND c LIKE 'eventbus.delivery=%'",
        {}, true);
    return is_null_at(0, 1) ? nullptr : MemoryContextStrdup(memory, text_at(0, 1));
}

// Those that are not served go behind the others.
void choose_served(Brokers* brokers, MemoryContext memory) {
    brokers->all = brokers->count;
    StringInfoData names;
    initStringInfo(&names);
    auto waits = [](const catalog::BrokerVersion& broker) {
        return broker.is_foreign && settings::copies == settings::copies_pause;
    };
    for (int i = 0; i < brokers->all; ++i) {
        if (!waits(brokers->items[i])) continue;
        appendStringInfo(&names, "%s%s", brokers->of_copy++ > 0 ? ", " : "", brokers->items[i].name);
    }
    brokers->of_copy_names = MemoryContextStrdup(memory, names.data);
    auto* end = std::stable_partition(brokers->items, brokers->items + brokers->all,
                                      [&](const catalog::BrokerVersion& broker) { return !waits(broker); });
    brokers->count = settings::delivery ? static_cast<int>(end - brokers->items) : 0;
}

// Reads which brokers need a sender; false where the extension is gone.
bool read_brokers(Brokers* brokers, bool is_first, MemoryContext memory) {
    MemoryContextReset(memory);
    *brokers = Brokers();
    if (!begin_transaction_on_extension("reading brokers")) return false;
    bool exists = log::relations_if_any() != nullptr;
    if (exists) {
        SPI_connect();
        brokers->database = MemoryContextStrdup(memory, get_database_name(MyDatabaseId));
        const char* version = extension_version();
        if (strcmp(version, EVENTBUS_VERSION) != 0) {
            brokers->version = MemoryContextStrdup(memory, version);
        } else {
            if (is_first && was_upgraded()) (void)catalog::take_over_upgraded_brokers();
            brokers->setting = delivery_of_database(memory);
            brokers->count = catalog::brokers_with_routes(&brokers->items, memory);
            choose_served(brokers, memory);
            int32* readers;
            int count = catalog::brokers_with_wal_routes(&readers, memory);
            brokers->slots_left = !wal::drop_slots_but(readers, count, catalog::hold_without_wal_routes);
        }
        SPI_finish();
    }
    commit_transaction();
    return exists;
}

// The extension is gone, and the senders are about to be.
void drop_all_slots() {
    for (bool all = false; !all && !stop_requested();) {
        begin_transaction("dropping replication slots");
        SPI_connect();
        all = wal::drop_slots_but(nullptr, 0, nullptr);
        SPI_finish();
        commit_transaction();
        CHECK_FOR_INTERRUPTS();
        if (!all) sleep_on_latch(100, "EventbusKeeperMain");
    }
}

// Starts one sender if it is due; returns when to look again (0: no need).
SteadyTime tend(int32 broker_id, const char* name, const char* database_name) {
    Sender* sender = sender_of(broker_id);
    SteadyTime now = steady_now();
    if (sender->handle != nullptr) {
        if (state_of(sender->handle) != ChildState::gone) return 0;
        pfree(sender->handle);
        sender->handle = nullptr;
        if (ms_have_passed(sender->started_at, now, 60000) ||
            counters::left_when_asked(counters::WorkerKind::sender, MyDatabaseId, broker_id))
            sender->backoff.reset();
        sender->retry_at = plus_ms(now, sender->backoff.next(static_cast<uint32>(now)).count());
    }
    if (counters::pid_of_sender(MyDatabaseId, broker_id) != 0)
        return plus_ms(now, 1000);  // of an earlier keeper: nobody will tell us when it leaves
    if (now < sender->retry_at) return sender->retry_at;
    sender->handle = start_sender(MyDatabaseId, database_name, broker_id, name);
    sender->started_at = now;
    sender->starved = sender->handle == nullptr;
    if (!sender->starved) return 0;
    sender->retry_at = plus_ms(now, 5000);
    return sender->retry_at;
}

// What has changed may be what they failed for, or what they have left for; what has not, is not.
void forgive_senders(const Brokers& brokers) {
    for (int i = 0; i < brokers.count; ++i) {
        Sender* sender = sender_of(brokers.items[i].id);
        if (sender->version == brokers.items[i].version) continue;
        sender->version = brokers.items[i].version;
        sender->backoff.reset();
        sender->retry_at = 0;
    }
}

// Its tables are not those that this library reads and writes: nobody touches them but publishers.
void tell_version(const Brokers& brokers) {
    static bool told = false;
    if (brokers.version != nullptr && !told)
        ereport(WARNING,
                (errmsg("pg_eventbus: events of database %s wait: its extension is version %s, the server's library %s",
                        brokers.database, brokers.version, EVENTBUS_VERSION),
                 errdetail("Publishing continues. No sender runs, and the log is not rotated, until the two agree."),
                 is_newer_than_library(brokers.version)
                     ? errhint("Install that version of pg_eventbus, where that is not done, and restart the server.")
                     : errhint("Run ALTER EXTENSION pg_eventbus UPDATE in that database.")));
    if (brokers.version == nullptr && told)
        ereport(LOG, (errmsg("pg_eventbus: the extension of database %s is version %s now; delivery resumes",
                             brokers.database, EVENTBUS_VERSION)));
    told = brokers.version != nullptr;
    database->other_version = told;
}

// What is not delivered by intent, once a change.
void tell_pauses(const Brokers& brokers) {
    static int told_copy = 0;
    static bool told_off = false;
    if (brokers.of_copy > 0 && told_copy != brokers.of_copy)
        ereport(
            WARNING,
            (errmsg("pg_eventbus: database %s is a copy: nothing is delivered to brokers that it was copied with: %s",
                    brokers.database, brokers.of_copy_names),
             errdetail("They were made in another database, or by a server of which this one is a copy, and that one "
                       "may deliver to them. Their events wait; the log is kept to %s, and leaves its oldest out.",
                       settings::max_log_size > 0 ? "eventbus.max_log_size" : "1 GB"),
             errhint("%s", counters::hint_of_copies)));
    if (brokers.of_copy == 0 && told_copy > 0)
        ereport(LOG, (errmsg("pg_eventbus: database %s has no brokers of a copy any more", brokers.database)));
    told_copy = brokers.of_copy;
    const bool off = !settings::delivery && brokers.all > 0;
    if (off && !told_off)
        ereport(WARNING,
                (errmsg("pg_eventbus: nothing of database %s is delivered: eventbus.delivery is off", brokers.database),
                 errdetail("Events wait in the log and in the WAL."),
                 errhint("Set eventbus.delivery = on, for the server or with ALTER DATABASE, and reload.")));
    if (!off && told_off)
        ereport(LOG,
                (errmsg("pg_eventbus: delivery of database %s resumes: eventbus.delivery is on", brokers.database)));
    told_off = off;
}

char* starved_brokers(const Brokers& brokers) {
    StringInfoData names;
    initStringInfo(&names);
    for (int i = 0; i < brokers.count; ++i)
        if (sender_of(brokers.items[i].id)->starved)
            appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", brokers.items[i].name);
    return names.data;
}

bool is_served(int32 broker_id) {
    if (counters::pid_of_sender(MyDatabaseId, broker_id) != 0) return !counters::is_unusable(MyDatabaseId, broker_id);
    Sender* sender = sender_of(broker_id);
    return sender->handle != nullptr && state_of(sender->handle) != ChildState::gone;
}

SteadyTime tend_all(const Brokers& brokers) {
    SteadyTime next = 0;
    for (int i = 0; i < brokers.count; ++i) {
        SteadyTime want = tend(brokers.items[i].id, brokers.items[i].name, brokers.database);
        if (want != 0 && (next == 0 || want < next)) next = want;
    }
    int missing = 0;
    int decoders = 0;
    for (int i = 0; i < brokers.count; ++i)
        if (brokers.items[i].reads_wal && sender_of(brokers.items[i].id)->starved) ++decoders;
    ListCell* cell;
    foreach (cell, senders) {
        auto* sender = static_cast<Sender*>(lfirst(cell));
        if (brokers.has(sender->broker_id)) {
            missing += sender->starved ? 1 : 0;
            continue;
        }
        stop_sender(sender->broker_id);
        if (sender->handle != nullptr && state_of(sender->handle) != ChildState::gone) continue;
        senders = foreach_delete_current(senders, cell);
        pfree(sender);
    }
    for (int i = brokers.count; i < brokers.all; ++i) stop_sender(brokers.items[i].id);
    database->missing_workers = missing;
    database->wanted_decoders = decoders;
    if (missing > 0 && !warned_no_room) {
        char* names = starved_brokers(brokers);
        ereport(WARNING,
                (errmsg("pg_eventbus cannot start %d of its senders: no background worker slot is free", missing),
                 errdetail("Database %s, brokers: %s. Their events wait; it is tried again every 5 s. "
                           "max_worker_processes is %d.",
                           brokers.database, names, max_worker_processes),
                 errhint("Set max_worker_processes to at least %d and restart the server.",
                         counters::wanted_worker_processes())));
        pfree(names);
    }
    if (missing == 0 && warned_no_room)
        ereport(LOG, (errmsg("pg_eventbus: all senders of database %s have found a background worker slot",
                             brokers.database)));
    warned_no_room = missing > 0;
    return next;
}

}  // namespace

}  // namespace eventbus::processes

using namespace eventbus;
using namespace eventbus::processes;

extern "C" PGDLLEXPORT void eventbus_keeper_main(Datum argument) {
    Oid oid = DatumGetObjectId(argument);
    set_up_signals(OnSigterm::leave_waits);
    if (counters::pid_of_keeper(oid) != 0) proc_exit(0);
    database = counters::find_database(oid, true);
    if (database == nullptr || counters::attach_worker(counters::WorkerKind::keeper, oid, 0) == nullptr) {
        if (counters::pid_of_keeper(oid) != 0) proc_exit(0);
        refuse_for_lack_of_room();
    }
    // Attached first, looked second: whoever suspends the database either sees us here or is seen by us.
    if (database->suspended_by != 0) proc_exit(0);
    connect_to(oid);

    MemoryContext memory = AllocSetContextCreate(TopMemoryContext, "pg_eventbus keeper", ALLOCSET_SMALL_SIZES);
    std::uint32_t configuration = 0;
    bool first = true;
    Brokers brokers;
    Upkeep upkeep(database, is_served);
    for (;;) {
        if (stop_requested()) proc_exit(0);
        CHECK_FOR_INTERRUPTS();
        const bool reloaded = reload_if_requested();

        std::uint32_t now_configuration = database->configuration;
        bool changed = first || reloaded || now_configuration != configuration;
        char setting_before[64] = "";
        if (brokers.setting != nullptr) strlcpy(setting_before, brokers.setting, sizeof setting_before);
        if (changed || brokers.slots_left || brokers.version != nullptr) {
            configuration = now_configuration;
            if (!read_brokers(&brokers, first, memory)) {
                database->has_extension = false;
                database->no_extension = true;
                counters::Pids pids;
                int count = counters::pids_of_workers(oid, pids);
                for (int i = 0; i < count; ++i)
                    if (pids[i] != MyProcPid) kill(pids[i], SIGTERM);
                drop_all_slots();
                counters::free_route(oid, 0);
                proc_exit(0);
            }
            // What ALTER DATABASE says is read where a process begins: the next one does, without back-off.
            if (!first && strcmp(setting_before, brokers.setting != nullptr ? brokers.setting : "") != 0) {
                counters::note_asked_to_leave();
                proc_exit(0);
            }
            database->delivery_off = !settings::delivery;
            forgive_senders(brokers);
            tell_version(brokers);
            tell_pauses(brokers);
            upkeep.keep_small(brokers.of_copy > 0);
            if (changed) upkeep.hurry();  // a route may be gone, and what it kept with it
            if (!database->has_extension.exchange(true)) counters::wake_launcher();
            first = false;
        }

        SteadyTime now = steady_now();
        SteadyTime next = plus_ms(now, settings::safety_poll);
        for (SteadyTime want : {tend_all(brokers), brokers.version == nullptr ? upkeep.run_if_due() : 0})
            if (want != 0 && want < next) next = want;
        if (brokers.slots_left) next = std::min(next, plus_ms(now, 500));
        if (database->configuration != configuration) continue;  // waits of this round may have used up the latch
        pgstat_report_activity(STATE_IDLE, "waiting for something to change: brokers, routes, the log");
        sleep_on_latch(std::max<long>(1, ms_until(next)), "EventbusKeeperMain");
    }
}
