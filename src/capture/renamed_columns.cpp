// What it is: keeping capture triggers true when a table's columns are renamed or dropped; the event trigger function.
// Who calls it: the event triggers eventbus_follow_….
// Never: changes a trigger that is none of a capture.
#include "capture/capture.hpp"
#include "capture/partitions.hpp"
#include "postgres/attempt.hpp"
#include "postgres/compat.hpp"
#include "postgres/query.hpp"
#include "postgres/rights.hpp"

extern "C" {
#include "access/detoast.h"
#include "access/genam.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type_d.h"
#include "commands/event_trigger.h"
#include "nodes/parsenodes.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
}

namespace eventbus::capture {

namespace {

// A column that has another name now, or none any more.
struct ColumnChange {
    const char* from;
    const char* to;  // nullptr: dropped
};

bytea* join_arguments(List* texts) {
    StringInfoData packed;
    initStringInfo(&packed);
    appendStringInfoSpaces(&packed, VARHDRSZ);
    ListCell* cell;
    foreach (cell, texts) {
        const char* text = static_cast<char*>(lfirst(cell));
        appendBinaryStringInfo(&packed, text, static_cast<int>(strlen(text)) + 1);
    }
    SET_VARSIZE(packed.data, packed.len);
    return reinterpret_cast<bytea*>(packed.data);
}

// The argument after the change; the same pointer where it does not concern it. What is left out stays so by its name:
// a column that is added under it, or renamed to it, is not published because another one has gone.
// What cannot be read concerns nobody but the trigger: others may drop and rename what they own, with all that depends
// on it.
char* changed_argument(char* argument, const ColumnChange& change, Oid relation) {
    const char* value = strchr(argument, '=');
    if (value == nullptr) return argument;
    bool key = strncmp(argument, "key=", 4) == 0;
    if (!key && strncmp(argument, "columns=", 8) != 0) return argument;
    ColumnList list = {};
    if (attempt([&] { list = read_column_list(value + 1); }) != nullptr) return argument;
    bool found = false;
    ListCell* cell;
    foreach (cell, list.names) {
        if (strcmp(static_cast<char*>(lfirst(cell)), change.from) != 0) continue;
        if (list.except) {
            found = change.to != nullptr && !is_member(list.names, change.to);
            if (found) list.names = lappend(list.names, pstrdup(change.to));
            break;
        }
        found = true;
        if (change.to != nullptr) {
            lfirst(cell) = pstrdup(change.to);
        } else {
            list.names = foreach_delete_current(list.names, cell);
        }
    }
    if (!found) return argument;
    if (change.to == nullptr && (key || list.names == NIL)) {
        // The owner of its type takes the column along, and could not end the capture. Then the changes fail.
        if (!compat::owns_relation(relation, GetUserId())) return argument;
        ereport(ERROR, (errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
                        errmsg("cannot drop column \"%s\" of table \"%s\": its capture needs it", change.from,
                               get_rel_name(relation)),
                        errdetail("It stands in the capture's %s.", key ? "key" : "columns"),
                        errhint("Call eventbus.capture with another one first, or eventbus.uncapture.")));
    }
    return psprintf("%.*s=%s", static_cast<int>(value - argument), argument, column_list_text(list));
}

void follow(Oid relation, const ColumnChange& change, const CaptureFunctions& functions, Relation triggers) {
    ScanKeyData scan_key;
    ScanKeyInit(&scan_key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relation));
    SysScanDesc scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, nullptr, 1, &scan_key);
    bool any = false;
    while (HeapTuple tuple = systable_getnext(scan)) {
        auto* form = reinterpret_cast<Form_pg_trigger>(GETSTRUCT(tuple));
        if (!functions.has(form->tgfoid)) continue;
        bool null;
        Datum packed = fastgetattr(tuple, Anum_pg_trigger_tgargs, RelationGetDescr(triggers), &null);
        if (toast_raw_datum_size(packed) > longest_arguments + VARHDRSZ) continue;
        List* texts = NIL;
        bool changed = false;
        ListCell* cell;
        foreach (cell, split_arguments(DatumGetByteaPP(packed))) {
            auto* argument = static_cast<char*>(lfirst(cell));
            bool is_topic = texts == NIL;
            char* now = is_topic ? argument : changed_argument(argument, change, relation);
            changed = changed || now != argument;
            texts = lappend(texts, now);
        }
        if (!changed) continue;
        any = true;
        Datum values[Natts_pg_trigger] = {};
        bool nulls[Natts_pg_trigger] = {};
        bool replace[Natts_pg_trigger] = {};
        values[Anum_pg_trigger_tgargs - 1] = PointerGetDatum(join_arguments(texts));
        values[Anum_pg_trigger_tgnargs - 1] = Int16GetDatum(static_cast<int16>(list_length(texts)));
        replace[Anum_pg_trigger_tgargs - 1] = replace[Anum_pg_trigger_tgnargs - 1] = true;
        HeapTuple made = heap_modify_tuple(tuple, RelationGetDescr(triggers), values, nulls, replace);
        CatalogTupleUpdate(triggers, &made->t_self, made);
    }
    systable_endscan(scan);
    if (!any) return;
    CacheInvalidateRelcacheByRelid(relation);
    CommandCounterIncrement();  // another column of the same command may concern the same trigger
}

// The tables of a composite type.
List* tables_of_type(Oid type) {
    List* tables = NIL;
    Relation classes = table_open(RelationRelationId, AccessShareLock);
    ScanKeyData key;
    ScanKeyInit(&key, Anum_pg_class_reloftype, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(type));
    SysScanDesc scan = systable_beginscan(classes, InvalidOid, false, nullptr, 1, &key);
    while (HeapTuple tuple = systable_getnext(scan))
        tables = lappend_oid(tables, reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->oid);
    systable_endscan(scan);
    table_close(classes, AccessShareLock);
    return tables;
}

// A column is one whatever the statement calls its table (ALTER VIEW renames those of tables as well), and an attribute
// of a type is a column of its tables.
void follow_renamed(const RenameStmt* rename, const CaptureFunctions& functions, Relation triggers) {
    if (rename->renameType != OBJECT_COLUMN && rename->renameType != OBJECT_ATTRIBUTE) return;
    const Oid renamed = RangeVarGetRelid(rename->relation, NoLock, true);
    if (!OidIsValid(renamed)) return;
    List* tables =
        rename->renameType == OBJECT_COLUMN ? list_make1_oid(renamed) : tables_of_type(get_rel_type_id(renamed));
    ListCell* of;
    foreach (of, tables) {
        ListCell* cell;
        foreach (cell, find_all_inheritors(lfirst_oid(of), NoLock, nullptr))
            follow(lfirst_oid(cell), {rename->subname, rename->newname}, functions, triggers);
    }
}

// Not only ALTER TABLE drops columns: a type takes its columns along; and it may leave those of children behind.
void follow_dropped(const CaptureFunctions& functions, Relation triggers) {
    // Whoever drops something may have been denied PostgreSQL's function; all names are qualified, nothing of theirs is
    // run.
    const Caller caller = become(functions.owner, SECURITY_RESTRICTED_OPERATION);
    SPI_connect();
    run_query(
        "SELECT objid::pg_catalog.int8, address_names[pg_catalog.array_upper(address_names, 1)] "
        "FROM pg_catalog.pg_event_trigger_dropped_objects() "
        "WHERE classid OPERATOR(pg_catalog.=) 1259 AND objsubid OPERATOR(pg_catalog.<>) 0");
    be_again(caller);
    for (uint64 i = 0; i < SPI_processed; ++i)
        follow(static_cast<Oid>(int8_at(i, 1)), {text_at(i, 2), nullptr}, functions, triggers);
    SPI_finish();
}

}  // namespace

}  // namespace eventbus::capture

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_follow_captured);
}

using namespace eventbus;
using namespace eventbus::capture;

Datum eventbus_follow_captured(PG_FUNCTION_ARGS) {
    if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("eventbus.follow_captured can only be called as an event trigger")));
    auto* fired = reinterpret_cast<EventTriggerData*>(fcinfo->context);
    const CaptureFunctions functions = look_up_capture_functions();
    if (!OidIsValid(functions.change)) PG_RETURN_NULL();
    if (strcmp(fired->event, "ddl_command_start") == 0) {
        let_make_partitions(fired->parsetree, functions);
        PG_RETURN_NULL();
    }
    const bool dropped = strcmp(fired->event, "sql_drop") == 0;
    if (!dropped && (IsA(fired->parsetree, CreateTrigStmt) || IsA(fired->parsetree, CreateSchemaStmt)))
        refuse_made_by_hand(functions);
    if (!dropped && !IsA(fired->parsetree, RenameStmt)) PG_RETURN_NULL();
    Relation triggers = table_open(TriggerRelationId, RowExclusiveLock);
    if (dropped) {
        follow_dropped(functions, triggers);
    } else {
        follow_renamed(reinterpret_cast<RenameStmt*>(fired->parsetree), functions, triggers);
    }
    table_close(triggers, RowExclusiveLock);
    PG_RETURN_NULL();
}
