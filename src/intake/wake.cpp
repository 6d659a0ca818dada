// What it is: the one transaction callback, and what else writes the events that wait in memory.
// Who calls it: PostgreSQL, at the end of transactions, at both ends of subtransactions and statements.
// Never: can fail once a transaction has happened.
#include "intake/wake.hpp"

#include "counters/shared.hpp"
#include "postgres/wal_end.hpp"
#include "source/log/log.hpp"

extern "C" {
#include "executor/executor.h"
}

namespace eventbus::intake {

namespace {

bool configuration = false;
bool databases = false;
struct {
    bool commits;
    bool rolls_back;
    bool events;
} prepared;
// Databases whose workers have left for a command of this transaction, and the subtransaction that ran it.
struct Suspended {
    Oid database;
    SubTransactionId by;
};
List* suspended = NIL;  // of Suspended *, in TopMemoryContext

void resume(Oid oid) {
    counters::Database* database = counters::find_database(oid, false);
    if (database == nullptr) return;
    int mine = MyProcPid;
    database->suspended_by.compare_exchange_strong(mine, 0);
    database->look = true;
}

// Those of one subtransaction, or all.
void resume_suspended(SubTransactionId by) {
    bool any = false;
    ListCell* cell;
    foreach (cell, suspended) {
        auto* one = static_cast<Suspended*>(lfirst(cell));
        if (by != InvalidSubTransactionId && one->by != by) continue;
        resume(one->database);
        suspended = foreach_delete_current(suspended, cell);
        pfree(one);
        any = true;
    }
    if (any) counters::wake_launcher();
}

void suspended_by_parent(SubTransactionId subtransaction, SubTransactionId parent) {
    ListCell* cell;
    foreach (cell, suspended)
        if (auto* one = static_cast<Suspended*>(lfirst(cell)); one->by == subtransaction) one->by = parent;
}

void tell_wal_readers() {
    counters::Database* database = counters::my_database();
    if (database == nullptr || database->wal_readers == 0) return;
    if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
        counters::tell_wal_readers(database, XactLastCommitEnd);
    else if (prepared.commits)
        counters::tell_wal_readers(database, end_of_wal());
}

void at_end(XactEvent event, void*) {
    switch (event) {
        case XACT_EVENT_PRE_COMMIT:
        case XACT_EVENT_PRE_PREPARE:
            log::write_pending();
            return;
        case XACT_EVENT_COMMIT:
        case XACT_EVENT_ABORT:
        case XACT_EVENT_PREPARE:
            break;
        default:
            return;
    }

    // First: whoever reads our events, or is told of them, finds the routes that we have made with them.
    if (configuration && event == XACT_EVENT_COMMIT) {
        if (counters::Database* database = counters::configuration_changed(MyDatabaseId))
            database->log.forget();  // the extension may be another one now; the keeper will say
    }
    bool published = log::appended_in_this_transaction() || (prepared.commits && prepared.events);
    if (event == XACT_EVENT_COMMIT && published) {
        if (counters::Database* database = counters::my_database()) counters::count_commit(database);
    }
    if (event == XACT_EVENT_COMMIT) tell_wal_readers();
    counters::wal_has_grown(ProcLastRecPtr);  // decoders of other databases keep up
    // Somebody may wait for an event that will never be.
    bool undone =
        event == XACT_EVENT_ABORT ? log::appended_in_this_transaction() : prepared.rolls_back && prepared.events;
    if (undone) counters::stir_waiters(MyDatabaseId);
    log::forget_pending();
    log::forget_appended();
    prepared = {};

    if (configuration && event == XACT_EVENT_COMMIT) {
        counters::wake_workers_of(MyDatabaseId);
        counters::stir_waiters(MyDatabaseId);
        counters::wake_launcher();
    }
    configuration = false;

    resume_suspended(InvalidSubTransactionId);
    if (databases) counters::wake_launcher();
    databases = false;
}

void at_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void*) {
    switch (event) {
        case SUBXACT_EVENT_START_SUB:
            log::write_pending_of_parent();
            break;
        case SUBXACT_EVENT_PRE_COMMIT_SUB:
            log::write_pending();
            break;
        case SUBXACT_EVENT_COMMIT_SUB:
            suspended_by_parent(mine, parent);
            break;
        case SUBXACT_EVENT_ABORT_SUB:
            log::forget_pending();
            resume_suspended(mine);
            break;
        default:
            break;
    }
}

ExecutorStart_hook_type previous_start = nullptr;
ExecutorFinish_hook_type previous_finish = nullptr;

// A command may read the log, and change rows that others publish about.
void at_start(QueryDesc* query, int flags) {
    log::write_pending();
    (previous_start != nullptr ? previous_start : standard_ExecutorStart)(query, flags);
}

// Triggers fire as a statement finishes.
void at_finish(QueryDesc* query) {
    (previous_finish != nullptr ? previous_finish : standard_ExecutorFinish)(query);
    log::write_pending();
}

}  // namespace

void register_wake() {
    RegisterXactCallback(at_end, nullptr);
    RegisterSubXactCallback(at_subtransaction, nullptr);
}

void install_statement_hooks() {
    previous_start = ExecutorStart_hook;
    ExecutorStart_hook = at_start;
    previous_finish = ExecutorFinish_hook;
    ExecutorFinish_hook = at_finish;
}
void configuration_changed() {
    configuration = true;
}
void databases_changed() {
    databases = true;
}
void prepared_ends(bool commits, const PreparedWork& work) {
    prepared = {commits, !commits, work.events};
    if (commits && work.configuration) configuration = true;
}
void resume_at_end(Oid database) {
    ListCell* cell;
    foreach (cell, suspended)
        if (static_cast<Suspended*>(lfirst(cell))->database == database) return;
    MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
    auto* one = static_cast<Suspended*>(palloc(sizeof(Suspended)));
    *one = {database, GetCurrentSubTransactionId()};
    suspended = lappend(suspended, one);
    MemoryContextSwitchTo(before);
}

}  // namespace eventbus::intake
