// What it is: the utility hook.
// Who calls it: PostgreSQL, for every utility command of every backend.
// Never: touches a database that the caller has no rights to: that would let anybody stop its delivery.
//
// CREATE DATABASE … TEMPLATE, DROP DATABASE and ALTER DATABASE … RENAME or SET TABLESPACE fail while somebody else is
// connected. Our workers leave before the command runs, and may come back when its transaction has ended, one way
// or the other (wake.cpp).
#include "processes/utility_hook.hpp"

#include <csignal>

#include "capture/ddl.hpp"
#include "counters/shared.hpp"
#include "intake/prepared.hpp"
#include "intake/wake.hpp"
#include "processes/sleep.hpp"
#include "source/log/log.hpp"

extern "C" {
#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/inval.h"
#include "utils/syscache.h"
}

namespace eventbus::processes {

namespace {

ProcessUtility_hook_type previous_hook = nullptr;
constexpr int most_wait_ms = 10000;

bool may_create_databases(Oid role) {
    if (superuser_arg(role)) return true;
    bool may = false;
    HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
    if (HeapTupleIsValid(tuple)) {
        may = reinterpret_cast<Form_pg_authid>(GETSTRUCT(tuple))->rolcreatedb;
        ReleaseSysCache(tuple);
    }
    return may;
}

bool is_template(Oid database) {
    bool is = false;
    HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
    if (HeapTupleIsValid(tuple)) {
        is = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple))->datistemplate;
        ReleaseSysCache(tuple);
    }
    return is;
}

// Makes the workers of the database leave, and waits for it.
void suspend(const char* name, bool as_template) {
    Oid oid = get_database_oid(name, true);
    if (!OidIsValid(oid)) return;
    // As the command itself will ask.
    const Oid role = GetUserId();
    bool allowed = as_template ? may_create_databases(role) && (is_template(oid) || compat::owns_database(oid, role))
                               : compat::owns_database(oid, role);
    counters::Database* database = counters::find_database(oid, false);
    if (!allowed || database == nullptr) return;

    intake::resume_at_end(oid);
    counters::Pids pids;
    for (int waited = 0; waited < most_wait_ms; waited += 10) {
        int nobody = 0;
        bool ours = database->suspended_by.compare_exchange_strong(nobody, MyProcPid) || nobody == MyProcPid;
        int count = counters::pids_of_workers(oid, pids);
        if (ours && count == 0) return;
        if (waited % 200 == 0)
            for (int i = 0; i < count; ++i) kill(pids[i], SIGTERM);
        (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
        ResetLatch(MyLatch);
        CHECK_FOR_INTERRUPTS();
    }
}

const char* option_value(List* options, const char* name) {
    ListCell* cell;
    foreach (cell, options) {
        auto* option = lfirst_node(DefElem, cell);
        if (strcmp(option->defname, name) == 0 && option->arg != nullptr) return defGetString(option);
    }
    return nullptr;
}

bool has_extension() {
    return OidIsValid(get_extension_oid("pg_eventbus", true));
}

bool was_absent;  // before the COMMIT PREPARED that runs

// The session that prepared the transaction knew what is in it; this one does not.
void before_prepared(const TransactionStmt* statement) {
    bool commits = statement->kind == TRANS_STMT_COMMIT_PREPARED;
    if (!commits && statement->kind != TRANS_STMT_ROLLBACK_PREPARED) return;
    was_absent = commits && !has_extension();
    if (was_absent || counters::my_database() == nullptr) return;
    intake::prepared_ends(commits, intake::work_of_prepared(statement->gid));
}

void after(const Node* statement) {
    if (nodeTag(statement) != T_TransactionStmt || !was_absent) return;
    was_absent = false;
    AcceptInvalidationMessages();
    if (has_extension()) intake::configuration_changed();
}

void before(Node* statement) {
    switch (nodeTag(statement)) {
        case T_CreatedbStmt: {
            const char* from = option_value(reinterpret_cast<CreatedbStmt*>(statement)->options, "template");
            suspend(from != nullptr ? from : "template1", true);
            intake::databases_changed();
            break;
        }
        case T_DropdbStmt:
            suspend(reinterpret_cast<DropdbStmt*>(statement)->dbname, false);
            intake::databases_changed();
            break;
        case T_RenameStmt:
            if (reinterpret_cast<RenameStmt*>(statement)->renameType == OBJECT_DATABASE)
                suspend(reinterpret_cast<RenameStmt*>(statement)->subname, false);
            break;
        case T_AlterDatabaseStmt: {
            auto* alter = reinterpret_cast<AlterDatabaseStmt*>(statement);
            if (option_value(alter->options, "tablespace") != nullptr) suspend(alter->dbname, false);
            intake::databases_changed();  // ALLOW_CONNECTIONS may have changed
            break;
        }
        case T_DropStmt: {
            ObjectType type = reinterpret_cast<DropStmt*>(statement)->removeType;
            if (type == OBJECT_EXTENSION || type == OBJECT_SCHEMA) intake::configuration_changed();
            break;
        }
        case T_DropOwnedStmt:
        case T_AlterExtensionStmt:
            intake::configuration_changed();
            break;
        case T_TransactionStmt:
            before_prepared(reinterpret_cast<TransactionStmt*>(statement));
            break;
        default:
            break;
    }
}

void hook(PlannedStmt* statement, const char* query, bool read_only_tree, ProcessUtilityContext context,
          ParamListInfo params, QueryEnvironment* environment, DestReceiver* destination, QueryCompletion* completion) {
    log::write_pending();
    // The database commands want a transaction to look things up in; outside of one there is nothing to prepare.
    if (counters::shared() != nullptr && IsTransactionState()) before(statement->utilityStmt);
    capture::RunningCommand outer = capture::running_command;
    capture::running_command = {query, statement->stmt_location, statement->stmt_len};
    PG_TRY();
    {
        (previous_hook != nullptr ? previous_hook : standard_ProcessUtility)(
            statement, query, read_only_tree, context, params, environment, destination, completion);
    }
    PG_FINALLY();
    { capture::running_command = outer; }
    PG_END_TRY();
    if (was_absent && IsTransactionState()) after(statement->utilityStmt);
    log::write_pending();  // COPY fires triggers, too
}

}  // namespace

void install_utility_hook() {
    previous_hook = ProcessUtility_hook;
    ProcessUtility_hook = hook;
}

}  // namespace eventbus::processes
