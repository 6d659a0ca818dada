#include "capture/partitions.hpp"

#include "postgres/compat.hpp"
#include "postgres/query.hpp"
#include "postgres/rights.hpp"

extern "C" {
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/event_trigger.h"
#include "nodes/parsenodes.h"
#include "nodes/value.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
}

namespace eventbus::capture {

namespace {

bool has_trigger_of(Oid relation, Oid function) {
    Relation triggers = table_open(TriggerRelationId, AccessShareLock);
    ScanKeyData key;
    ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relation));
    SysScanDesc scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, nullptr, 1, &key);
    bool found = false;
    while (HeapTuple tuple = found ? nullptr : systable_getnext(scan))
        found = reinterpret_cast<Form_pg_trigger>(GETSTRUCT(tuple))->tgfoid == function;
    systable_endscan(scan);
    table_close(triggers, AccessShareLock);
    return found;
}

Oid owner_of(Oid relation) {
    HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
    if (!HeapTupleIsValid(tuple)) return InvalidOid;
    const Oid owner = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relowner;
    ReleaseSysCache(tuple);
    return owner;
}

// As GRANT does, but without being a command: event triggers of others would run with the rights of our owner.
void grant_execute(Oid function, Oid role) {
    auto* object = makeNode(ObjectWithArgs);
    object->objname = list_make2(makeString(pstrdup("eventbus")), makeString(get_func_name(function)));
    auto* privilege = makeNode(AccessPriv);
    privilege->priv_name = pstrdup("execute");
    auto* grantee = makeNode(RoleSpec);
    grantee->roletype = ROLESPEC_CSTRING;
    grantee->rolename = GetUserNameFromId(role, false);
    grantee->location = -1;
    auto* grant = makeNode(GrantStmt);
    grant->is_grant = true;
    grant->targtype = ACL_TARGET_OBJECT;
    grant->objtype = OBJECT_FUNCTION;
    grant->objects = list_make1(object);
    grant->privileges = list_make1(privilege);
    grant->grantees = list_make1(grantee);
    ExecuteGrantStmt(grant);
    CommandCounterIncrement();
}

void let_make_partition(Oid maker, const RangeVar* parent, const CaptureFunctions& functions) {
    const Oid function = functions.partitioned;
    const Caller asker = become(maker);
    const Oid table = RangeVarGetRelid(parent, NoLock, true);
    be_again(asker);
    if (!OidIsValid(table) || !compat::owns_relation(table, maker) || !has_trigger_of(table, function)) return;
    // One after the other: two changes of the function's row at once are an error.
    LockDatabaseObject(ProcedureRelationId, function, 0, ShareUpdateExclusiveLock);
    const Oid owner = owner_of(table);
    if (!OidIsValid(owner) || compat::may_execute(function, maker)) return;
    const Caller caller = become(functions.owner, SECURITY_RESTRICTED_OPERATION);
    EventTriggerInhibitCommandCollection();  // it is no part of the command
    grant_execute(function, owner);
    EventTriggerUndoInhibitCommandCollection();
    be_again(caller);
}

// The table of which a command makes a partition; nullptr: of none.
const RangeVar* parent_in(const Node* command) {
    if (IsA(command, AlterTableStmt)) {
        const auto* alter = reinterpret_cast<const AlterTableStmt*>(command);
        ListCell* cell;
        foreach (cell, alter->cmds)
            if (static_cast<AlterTableCmd*>(lfirst(cell))->subtype == AT_AttachPartition) return alter->relation;
        return nullptr;
    }
    if (!IsA(command, CreateStmt) && !IsA(command, CreateForeignTableStmt)) return nullptr;
    const auto* create = reinterpret_cast<const CreateStmt*>(command);  // a foreign table's begins with one
    return create->partbound != nullptr ? linitial_node(RangeVar, create->inhRelations) : nullptr;
}

// The name of a trigger that executes the function, and is no copy of a parent's; nullptr: none.
const char* made_by_this_transaction(Oid function) {
    Relation triggers = table_open(TriggerRelationId, AccessShareLock);
    SysScanDesc scan = systable_beginscan(triggers, InvalidOid, false, nullptr, 0, nullptr);
    const char* name = nullptr;
    while (HeapTuple tuple = name != nullptr ? nullptr : systable_getnext(scan)) {
        auto* form = reinterpret_cast<Form_pg_trigger>(GETSTRUCT(tuple));
        if (form->tgfoid == function && !OidIsValid(form->tgparentid) &&
            TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data)))
            name = pstrdup(NameStr(form->tgname));
    }
    systable_endscan(scan);
    table_close(triggers, AccessShareLock);
    return name;
}

}  // namespace

void let_make_partitions(const Node* command, const CaptureFunctions& functions) {
    if (!OidIsValid(functions.partitioned)) return;
    Oid maker = GetUserId();
    List* commands = list_make1(const_cast<Node*>(command));
    if (IsA(command, CreateSchemaStmt)) {
        const auto* create = reinterpret_cast<const CreateSchemaStmt*>(command);
        commands = create->schemaElts;
        if (create->authrole != nullptr) maker = get_rolespec_oid(create->authrole, true);
    }
    if (!OidIsValid(maker) || compat::may_execute(functions.partitioned, maker)) return;
    ListCell* cell;
    foreach (cell, commands)
        if (const RangeVar* parent = parent_in(static_cast<Node*>(lfirst(cell))))
            let_make_partition(maker, parent, functions);
}

void refuse_made_by_hand(const CaptureFunctions& functions) {
    if (!OidIsValid(functions.partitioned) || compat::may_execute(functions.change, GetUserId())) return;
    const Caller caller = become(functions.owner, SECURITY_RESTRICTED_OPERATION);
    SPI_connect();
    run_query(
        "SELECT t.tgname::pg_catalog.text FROM pg_catalog.pg_event_trigger_ddl_commands() c "
        "LEFT JOIN pg_catalog.pg_trigger t ON t.oid OPERATOR(pg_catalog.=) c.objid "
        "AND c.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass "
        "AND t.tgfoid OPERATOR(pg_catalog.=) $1 ORDER BY t.tgname USING OPERATOR(pg_catalog.<) LIMIT 1",
        {Argument{OIDOID, ObjectIdGetDatum(functions.partitioned), false}});
    be_again(caller);
    // PostgreSQL tells nothing of commands that REFRESH MATERIALIZED VIEW has led to.
    const char* made = SPI_processed > 0 ? text_at(0, 1) : made_by_this_transaction(functions.partitioned);
    if (made != nullptr)
        ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                        errmsg("trigger \"%s\" cannot execute eventbus.publish_partitioned", made),
                        errdetail("That is for the triggers that eventbus.capture makes."),
                        errhint("Call eventbus.capture, or be granted EXECUTE on eventbus.publish_change, which is the "
                                "right to make triggers by hand.")));
    SPI_finish();
}

}  // namespace eventbus::capture
