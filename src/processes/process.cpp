#include "processes/process.hpp"

#include "postgres/encoding.hpp"

extern "C" {
#include "catalog/namespace.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
}

#include <cerrno>
#include <csignal>
#include <ctime>

namespace eventbus::processes {

namespace {

char* search_path_of_sessions;

}  // namespace

namespace {

timer_t again;
int times_asked = 0;   // here alone,
int times_waited = 0;  // as this

// A sender's rounds are short, and end with what it knows written down. A lock that somebody else has may hold one up
// for hours: then there is no end of the round to wait for. One that is held for a moment, by a command that changes
// the configuration for example, is waited for. The signal comes again and again until the process is gone, for it may
// have come just before the wait began.
void finish_round(int) {
    constexpr int again_ms = 100;
    constexpr int patience_with_locks = 5;
    constexpr int patience = 30;  // whatever else holds the round up, a type's output function for example
    int error = errno;
    counters::note_asked_to_leave();
    if (!proc_exit_inprogress) {
        ShutdownRequestPending = 1;
        bool waits = MyProc != nullptr && MyProc->waitStatus == PROC_WAIT_STATUS_WAITING;
        times_waited = waits ? times_waited + 1 : 0;
        if (times_waited > patience_with_locks || ++times_asked > patience) {
            InterruptPending = 1;
            ProcDiePending = 1;
        }
        itimerspec time = {};
        time.it_value.tv_nsec = again_ms * 1000000;
        (void)timer_settime(again, 0, &time, nullptr);
    }
    SetLatch(MyLatch);
    errno = error;
}

void leave_waits(SIGNAL_ARGS) {
    counters::note_asked_to_leave();
    die(postgres_signal_arg);
}

}  // namespace

void set_up_signals(OnSigterm on_sigterm) {
    if (on_sigterm == OnSigterm::finish_round) {
        sigevent event = {};
        event.sigev_notify = SIGEV_SIGNAL;
        event.sigev_signo = SIGTERM;
        if (timer_create(CLOCK_MONOTONIC, &event, &again) != 0) elog(FATAL, "could not create a timer: %m");
        pqsignal(SIGTERM, finish_round);
    } else {
        pqsignal(SIGTERM, leave_waits);
    }
    // SIGUSR1 stays PostgreSQL's.
    pqsignal(SIGHUP, SignalHandlerForConfigReload);
    BackgroundWorkerUnblockSignals();
}

// ALTER DATABASE and ALTER ROLE may have made us somebody else.
static void be_ourselves() {
    StartTransactionCommand();
    SetConfigOption("session_authorization", GetUserNameFromId(GetAuthenticatedUserId(), false), PGC_SUSET,
                    PGC_S_OVERRIDE);
    CommitTransactionCommand();
}

void connect_to(Oid database) {
    if (OidIsValid(database)) {
        BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
        be_ourselves();
    } else {
        BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
    }
    search_path_of_sessions = MemoryContextStrdup(TopMemoryContext, namespace_search_path);
    struct Setting {
        const char* name;
        const char* value;
    };
    constexpr bool missing_ok = true;
    for (const Setting& setting : {
             Setting{"role", "none"},
             Setting{"application_name", MyBgworkerEntry->bgw_name},
             Setting{"search_path", "pg_catalog, pg_temp"},
             Setting{"default_transaction_isolation", "read committed"},
             Setting{"default_transaction_read_only", "off"},
             Setting{"default_transaction_deferrable", "off"},
             Setting{"statement_timeout", "0"},
             Setting{"lock_timeout", "0"},
             Setting{"idle_in_transaction_session_timeout", "0"},
             Setting{"transaction_timeout", "0"},
             Setting{"row_security", "off"},
             Setting{"client_min_messages", "warning"},
             Setting{"session_replication_role", "origin"},
             // What is read from the WAL is the same whatever the database's settings are when it is read.
             Setting{"bytea_output", "hex"},
             Setting{"datestyle", "ISO, MDY"},
             Setting{"extra_float_digits", "1"},
             Setting{"intervalstyle", "postgres"},
             Setting{"quote_all_identifiers", "off"},
             Setting{"timezone", "UTC"},
             // Who waits for a lock that somebody keeps for long shall not do so in silence.
             Setting{"log_lock_waits", "on"},
             Setting{"deadlock_timeout", "1s"},
         })
        if (GetConfigOption(setting.name, missing_ok, false) != nullptr)
            SetConfigOption(setting.name, setting.value, PGC_SUSET, PGC_S_OVERRIDE);
}

void use_search_path_of_sessions() {
    SetConfigOption("search_path", search_path_of_sessions, PGC_SUSET, PGC_S_OVERRIDE);
}

void refuse_for_lack_of_room() {
    ereport(WARNING, (errmsg("pg_eventbus: no room in shared memory for the process \"%s\"", MyBgworkerEntry->bgw_name),
                      errdetail("A server runs at most %d keepers, senders and decoders, for at most %d databases. "
                                "Events wait; it is tried again, at most a minute apart.",
                                counters::max_workers, counters::max_databases),
                      errhint("Drop brokers or extensions that are not needed.")));
    proc_exit(1);
}

bool stop_requested() {
    return ProcDiePending || ShutdownRequestPending;
}

bool reload_if_requested() {
    if (!ConfigReloadPending) return false;
    ConfigReloadPending = false;
    ProcessConfigFile(PGC_SIGHUP);
    return true;
}

ErrorData* survive(void (*work)(void*), void* argument) {
    MemoryContext before = CurrentMemoryContext;
    ErrorData* volatile error = nullptr;
    PG_TRY();
    { work(argument); }
    PG_CATCH();
    {
        MemoryContextSwitchTo(TopMemoryContext);
        error = CopyErrorData();
        FlushErrorState();
        AbortOutOfAnyTransaction();
        LWLockReleaseAll();
        ConditionVariableCancelSleep();
        pgstat_report_wait_end();
        UnlockBuffers();
    }
    PG_END_TRY();
    LockTimeout = 0;
    MemoryContextSwitchTo(before);
    return error;
}

void wait_for_locks(int milliseconds) {
    LockTimeout = milliseconds;
}

static void fill(BackgroundWorker* worker, const char* function) {
    *worker = BackgroundWorker();
    worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
    worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
    strlcpy(worker->bgw_library_name, "pg_eventbus", BGW_MAXLEN);
    strlcpy(worker->bgw_function_name, function, BGW_MAXLEN);
}

void register_launcher() {
    // pg_upgrade runs a server only to copy its files: nobody shall deliver or truncate anything meanwhile.
    if (IsBinaryUpgrade) return;
    BackgroundWorker worker;
    fill(&worker, "eventbus_launcher_main");
    worker.bgw_restart_time = 5;
    strlcpy(worker.bgw_name, "pg_eventbus launcher", BGW_MAXLEN);
    strlcpy(worker.bgw_type, "pg_eventbus launcher", BGW_MAXLEN);
    RegisterBackgroundWorker(&worker);
}

static BackgroundWorkerHandle* start(BackgroundWorker* worker, Oid database) {
    worker->bgw_restart_time = BGW_NEVER_RESTART;
    worker->bgw_notify_pid = MyProcPid;
    worker->bgw_main_arg = ObjectIdGetDatum(database);
    BackgroundWorkerHandle* handle = nullptr;
    MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
    bool registered = RegisterDynamicBackgroundWorker(worker, &handle);
    MemoryContextSwitchTo(before);
    return registered ? handle : nullptr;
}

BackgroundWorkerHandle* start_keeper(Oid database) {
    BackgroundWorker worker;
    fill(&worker, "eventbus_keeper_main");
    snprintf(worker.bgw_name, BGW_MAXLEN, "pg_eventbus keeper of database %u", database);
    strlcpy(worker.bgw_type, "pg_eventbus keeper", BGW_MAXLEN);
    return start(&worker, database);
}

BackgroundWorkerHandle* start_sender(Oid database, const char* database_name, int32 broker_id,
                                     const char* broker_name) {
    BackgroundWorker worker;
    fill(&worker, "eventbus_sender_main");
    copy_text(worker.bgw_name, BGW_MAXLEN, psprintf("pg_eventbus sender %s to %s", database_name, broker_name));
    strlcpy(worker.bgw_type, "pg_eventbus sender", BGW_MAXLEN);
    memcpy(worker.bgw_extra, &broker_id, sizeof broker_id);
    return start(&worker, database);
}

BackgroundWorkerHandle* start_decoder(Oid database, const char* database_name, const DecoderArguments& arguments,
                                      const char* broker_name) {
    BackgroundWorker worker;
    fill(&worker, "eventbus_decoder_main");
    copy_text(worker.bgw_name, BGW_MAXLEN, psprintf("pg_eventbus decoder %s for %s", database_name, broker_name));
    strlcpy(worker.bgw_type, "pg_eventbus decoder", BGW_MAXLEN);
    static_assert(sizeof arguments <= BGW_EXTRALEN);
    memcpy(worker.bgw_extra, &arguments, sizeof arguments);
    return start(&worker, database);
}

ChildState state_of(BackgroundWorkerHandle* handle) {
    pid_t pid;
    switch (GetBackgroundWorkerPid(handle, &pid)) {
        case BGWH_STARTED:
            return ChildState::running;
        case BGWH_NOT_YET_STARTED:
            return ChildState::starting;
        default:
            return ChildState::gone;
    }
}

}  // namespace eventbus::processes
