// What it is: the one transaction callback, and what else writes the events that wait in memory.
// Who calls it: PostgreSQL, at the end of transactions, at both ends of subtransactions and statements.
// Never: can fail once a transaction has happened.
#include "intake/wake.hpp"

#include "log/log.hpp"
#include "postgres/wal_end.hpp"
#include "status/shared.hpp"

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
Oid suspended = InvalidOid;

void tell_wal_readers() {
    status::Database* database = status::my_database();
    if (database == nullptr || database->wal_readers == 0) return;
    if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
        status::tell_wal_readers(database, XactLastCommitEnd);
    else if (prepared.commits)
        status::tell_wal_readers(database, end_of_wal());
}

void at_end(XactEvent event, void*) {
    switch (event) {
        case XACT_EVENT_PRE_COMMIT:
        case XACT_EVENT_PRE_PREPARE:
            log::write_waiting();
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
        if (status::Database* database = status::configuration_changed(MyDatabaseId))
            database->log.forget();  // the extension may be another one now; the keeper will say
    }
    bool published = log::appended_in_this_transaction() || (prepared.commits && prepared.events);
    if (event == XACT_EVENT_COMMIT && published) {
        if (status::Database* database = status::my_database()) status::count_commit(database);
    }
    if (event == XACT_EVENT_COMMIT) tell_wal_readers();
    status::wal_has_grown(ProcLastRecPtr);  // decoders of other databases keep up
    // Somebody may wait for an event that will never be.
    bool undone =
        event == XACT_EVENT_ABORT ? log::appended_in_this_transaction() : prepared.rolls_back && prepared.events;
    if (undone) status::stir_waiters(MyDatabaseId, 0);
    log::forget_waiting();
    log::forget_appended();
    prepared = {};

    if (configuration && event == XACT_EVENT_COMMIT) {
        status::wake_workers_of(MyDatabaseId);
        status::stir_waiters(MyDatabaseId, 0);
        status::wake_launcher();
    }
    configuration = false;

    if (OidIsValid(suspended)) {
        if (status::Database* database = status::find_database(suspended, false)) {
            database->suspended_by = 0;
            database->look = true;
        }
        suspended = InvalidOid;
        databases = true;
    }
    if (databases) status::wake_launcher();
    databases = false;
}

void at_subtransaction(SubXactEvent event, SubTransactionId, SubTransactionId, void*) {
    switch (event) {
        case SUBXACT_EVENT_START_SUB:
            log::write_waiting_of_parent();
            break;
        case SUBXACT_EVENT_PRE_COMMIT_SUB:
            log::write_waiting();
            break;
        case SUBXACT_EVENT_ABORT_SUB:
            log::forget_waiting();
            break;
        default:
            break;
    }
}

ExecutorStart_hook_type previous_start = nullptr;
ExecutorFinish_hook_type previous_finish = nullptr;

// A command may read the log, and change rows that others publish about.
void at_start(QueryDesc* query, int flags) {
    log::write_waiting();
    (previous_start != nullptr ? previous_start : standard_ExecutorStart)(query, flags);
}

// Triggers fire as a statement finishes.
void at_finish(QueryDesc* query) {
    (previous_finish != nullptr ? previous_finish : standard_ExecutorFinish)(query);
    log::write_waiting();
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
    suspended = database;
}

}  // namespace eventbus::intake
