// What it is: eventbus.capture and uncapture: the triggers that make events of a table's changes.
// Who calls it: a table's owner, in SQL.
// Never: keeps a list of its own: the triggers are all there is, so that dumps, renames and partitions just work.
#include "capture/capture.hpp"

#include "intake/allowed.hpp"
#include "intake/publish.hpp"
#include "postgres/compat.hpp"
#include "postgres/rights.hpp"
#include "source/log/log.hpp"

extern "C" {
#include "access/genam.h"
#include "access/relation.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "parser/scansup.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
}

namespace eventbus::capture {

namespace {

struct KnownOperation {
    const char* name;
    int16 event;  // TRIGGER_TYPE_…
};
constexpr KnownOperation known_operations[] = {
    {"insert", TRIGGER_TYPE_INSERT},
    {"update", TRIGGER_TYPE_UPDATE},
    {"delete", TRIGGER_TYPE_DELETE},
    {"truncate", TRIGGER_TYPE_TRUNCATE},
};
constexpr const char* unchanged_word = "unchanged";
// Triggers fire in the order of their names: ours before others, whose own changes then come behind the one that they
// react to.
constexpr const char* trigger_prefix = "00_eventbus_";

struct Request {
    Oid relation;
    char* schema;
    char* table;
    int operations;  // bits of TRIGGER_TYPE_…
    bool unchanged;
    char* condition;  // or nullptr
    List* arguments;  // of String: the trigger's
};

int read_operations(char* text, bool* unchanged) {
    int operations = 0;
    *unchanged = false;
    for (char *rest = text, *word; (word = strsep(&rest, ",")) != nullptr;) {
        while (scanner_isspace(*word)) ++word;
        char* end = word + strlen(word);
        while (end > word && scanner_isspace(end[-1])) *--end = '\0';
        bool found = pg_strcasecmp(word, unchanged_word) == 0;
        if (found) *unchanged = true;
        for (const KnownOperation& known : known_operations) {
            if (pg_strcasecmp(word, known.name) != 0) continue;
            operations |= known.event;
            found = true;
        }
        if (!found)
            ereport(ERROR,
                    (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown operation \"%s\"", word),
                     errhint("Operations are a comma-separated list of insert, update, delete and truncate; with "
                             "unchanged, an UPDATE that changes nothing is published, too.")));
    }
    if (operations == 0)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("no operation to capture"),
                        errhint("Name some of insert, update, delete and truncate.")));
    return operations;
}

bool is_ours(const FormData_pg_trigger* trigger, const CaptureFunctions& functions) {
    return functions.has(trigger->tgfoid) &&
           strncmp(NameStr(trigger->tgname), trigger_prefix, strlen(trigger_prefix)) == 0;
}

// The oids of the triggers that capture() has made on the relation; copies of a parent's are no business of ours.
List* capture_triggers(Oid relation, const CaptureFunctions& functions, bool* inherited) {
    List* oids = NIL;
    *inherited = false;
    Relation triggers = table_open(TriggerRelationId, AccessShareLock);
    ScanKeyData key;
    ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relation));
    SysScanDesc scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, nullptr, 1, &key);
    while (HeapTuple tuple = systable_getnext(scan)) {
        auto* form = reinterpret_cast<Form_pg_trigger>(GETSTRUCT(tuple));
        if (!is_ours(form, functions)) continue;
        if (OidIsValid(form->tgparentid)) {
            *inherited = true;
        } else {
            oids = lappend_oid(oids, form->oid);
        }
    }
    systable_endscan(scan);
    table_close(triggers, AccessShareLock);
    return oids;
}

void drop_triggers(List* oids) {
    ObjectAddresses* objects = new_object_addresses();
    ListCell* cell;
    foreach (cell, oids) {
        ObjectAddress address;
        ObjectAddressSet(address, TriggerRelationId, lfirst_oid(cell));
        add_exact_object_address(&address, objects);
    }
    performMultipleDeletions(objects, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
    free_object_addresses(objects);
}

// The caller owns the table; that the triggers' function is not theirs to use otherwise does not matter. With the
// rights of the extension's owner nothing of the caller's is run: the condition has been read before.
void make_trigger(Relation rel, const Request& request, const KnownOperation& operation,
                  const CaptureFunctions& functions) {
    const bool partitioned = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE && OidIsValid(functions.partitioned);
    const Oid function = partitioned ? functions.partitioned : functions.change;
    bool row = operation.event != TRIGGER_TYPE_TRUNCATE;
    auto* stmt = makeNode(CreateTrigStmt);
    stmt->trigname = psprintf("%s%s", trigger_prefix, operation.name);
    stmt->relation = makeRangeVar(request.schema, request.table, -1);
    stmt->funcname = list_make2(makeString(pstrdup("eventbus")), makeString(get_func_name(function)));
    stmt->args = request.arguments;
    stmt->row = row;
    stmt->timing = TRIGGER_TYPE_AFTER;
    stmt->events = operation.event;

    CaptureCondition condition = {};
    if (row && request.condition != nullptr) condition = read_condition(rel, request.condition, operation.event);

    const Caller caller = become(functions.owner, SECURITY_RESTRICTED_OPERATION);
    ObjectAddress trigger = CreateTrigger(stmt, request.condition, request.relation, InvalidOid, InvalidOid, InvalidOid,
                                          function, InvalidOid, condition.expression, false, false);
    be_again(caller);
    if (condition.expression != nullptr)  // CreateTrigger does so only for what it has read itself
        recordDependencyOnExpr(&trigger, condition.expression, condition.rows, DEPENDENCY_NORMAL);
}

void add_argument(Request* request, const char* name, const char* value) {
    if (value == nullptr) return;
    request->arguments = lappend(request->arguments, makeString(psprintf("%s=%s", name, value)));
}

void check_owner(Oid relation) {
    if (!compat::owns_relation(relation, GetUserId()))
        aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relation)), get_rel_name(relation));
}

// The table, locked as CREATE TRIGGER does; errors unless the caller owns it and it takes row triggers. While somebody
// else's lock is waited for it may get another owner, or go.
Relation open_owned(Oid relation) {
    const char* name = OidIsValid(relation) ? get_rel_name(relation) : nullptr;
    if (name == nullptr)
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation with OID %u does not exist", relation)));
    check_owner(relation);
    Relation rel = try_relation_open(relation, ShareRowExclusiveLock);
    if (rel == nullptr)
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation \"%s\" does not exist any more", name)));
    check_owner(relation);
    return rel;
}

// As CREATE TRIGGER asks of each partition, which gets the trigger as well, and with it the condition: it is run by
// whoever writes there. Partitions that come later consent: whoever attaches one owns it.
void check_partitions(Relation rel) {
    if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE) return;
    ListCell* cell;
    foreach (cell, find_all_inheritors(RelationGetRelid(rel), ShareRowExclusiveLock, nullptr)) {
        const Oid partition = lfirst_oid(cell);
        if (pg_class_aclcheck(partition, GetUserId(), ACL_TRIGGER) == ACLCHECK_OK) continue;
        const char* name =
            quote_qualified_identifier(get_namespace_name(get_rel_namespace(partition)), get_rel_name(partition));
        ereport(ERROR,
                (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("permission denied for partition %s", name),
                 errdetail("Who captures a partitioned table needs the right TRIGGER on all of its partitions, as "
                           "for CREATE TRIGGER."),
                 errhint("GRANT TRIGGER ON %s TO %s gives it.", name,
                         quote_identifier(GetUserNameFromId(GetUserId(), false)))));
    }
}

void check_takes_triggers(Relation rel) {
    const char* name = RelationGetRelationName(rel);
    switch (rel->rd_rel->relkind) {
        case RELKIND_RELATION:
        case RELKIND_PARTITIONED_TABLE:
        case RELKIND_FOREIGN_TABLE:
            break;
        case RELKIND_VIEW:
            ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("view \"%s\" cannot be captured", name),
                            errdetail("Views have no triggers AFTER an operation on a row."),
                            errhint("Capture the tables behind it. An INSTEAD OF trigger may execute "
                                    "eventbus.publish_change itself.")));
            break;
        default:
            ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a table", name),
                            errhint("Tables, partitioned tables and foreign tables can be captured.")));
    }
    if (IsCatalogRelation(rel) || RelationGetNamespace(rel) == log::relations().schema)
        ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("\"%s\" cannot be captured", name),
                        errdetail("It is a table of PostgreSQL's or of pg_eventbus itself.")));
}

char* headers_text(FunctionCallInfo fcinfo, int index) {
    if (PG_ARGISNULL(index)) return nullptr;
    Jsonb* json = PG_GETARG_JSONB_P(index);
    intake::check_headers(PointerGetDatum(json));
    return JsonbToCString(nullptr, &json->root, static_cast<int>(VARSIZE(json)));
}

char* text_argument(FunctionCallInfo fcinfo, int index) {
    return PG_ARGISNULL(index) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(index));
}

char* required_argument(FunctionCallInfo fcinfo, int index, const char* name) {
    if (PG_ARGISNULL(index))
        ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name)));
    return text_argument(fcinfo, index);
}

}  // namespace

}  // namespace eventbus::capture

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_capture);
EVENTBUS_SQL_FUNCTION(eventbus_uncapture);
}

using namespace eventbus;
using namespace eventbus::capture;

Datum eventbus_capture(PG_FUNCTION_ARGS) {
    refuse_in_restricted(fcinfo);
    enum { arg_relation, arg_topic, arg_operations, arg_columns, arg_key, arg_condition, arg_payload, arg_headers };
    if (PG_ARGISNULL(arg_relation))
        ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("relation must not be null")));
    Request request = {};
    request.relation = PG_GETARG_OID(arg_relation);
    Relation rel = open_owned(request.relation);
    check_takes_triggers(rel);
    check_partitions(rel);
    request.schema = get_namespace_name(RelationGetNamespace(rel));
    request.table = pstrdup(RelationGetRelationName(rel));
    request.operations = read_operations(required_argument(fcinfo, arg_operations, "operations"), &request.unchanged);
    request.condition = text_argument(fcinfo, arg_condition);

    char* topic = required_argument(fcinfo, arg_topic, "topic");
    request.arguments = list_make1(makeString(topic));
    char* payload = required_argument(fcinfo, arg_payload, "payload");
    if (strcmp(payload, "change") != 0) add_argument(&request, "payload", payload);
    if (char* columns = text_argument(fcinfo, arg_columns); columns != nullptr)
        add_argument(&request, "columns", column_list_text(read_column_list(columns)));
    if (char* key = text_argument(fcinfo, arg_key); key != nullptr)
        add_argument(&request, "key", column_list_text(read_column_list(key)));
    add_argument(&request, "headers", headers_text(fcinfo, arg_headers));
    if (request.unchanged) add_argument(&request, "unchanged", "true");

    // As the trigger will read them, so that what is wrong with them is said now.
    char** texts = static_cast<char**>(palloc(sizeof(char*) * static_cast<Size>(list_length(request.arguments))));
    int count = 0;
    ListCell* cell;
    foreach (cell, request.arguments) texts[count++] = strVal(lfirst(cell));
    CaptureArguments read = read_capture_arguments(count, texts);
    check_columns(rel, read.columns.names, "columns");
    check_columns(rel, read.key, "key");
    for (const KnownOperation& operation : known_operations)
        if ((request.operations & operation.event) != 0)
            intake::check_allowed(capture_topic(topic, request.schema, request.table, operation.name));

    const CaptureFunctions functions = capture_functions();
    bool inherited;
    List* former = capture_triggers(request.relation, functions, &inherited);
    if (inherited)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("\"%s\" is captured with the table that it is a partition of", request.table),
                        errhint("Capture the one or the other: see eventbus.captured.")));
    drop_triggers(former);
    CommandCounterIncrement();

    bool takes_truncate =
        compat::foreign_tables_have_truncate_triggers || rel->rd_rel->relkind != RELKIND_FOREIGN_TABLE;
    for (const KnownOperation& operation : known_operations) {
        if (operation.event == TRIGGER_TYPE_TRUNCATE && !takes_truncate) continue;
        if ((request.operations & operation.event) != 0) make_trigger(rel, request, operation, functions);
    }
    table_close(rel, NoLock);
    PG_RETURN_VOID();
}

Datum eventbus_uncapture(PG_FUNCTION_ARGS) {
    refuse_in_restricted(fcinfo);
    if (PG_ARGISNULL(0)) ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("relation must not be null")));
    Oid relation = PG_GETARG_OID(0);
    Relation rel = open_owned(relation);
    bool inherited;
    List* oids = capture_triggers(relation, capture_functions(), &inherited);
    if (oids == NIL)
        ereport(ERROR,
                (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("\"%s\" is not captured", RelationGetRelationName(rel)),
                 inherited ? errhint("The table that it is a partition of is; see eventbus.captured.")
                           : errhint("See eventbus.captured. Triggers made by hand are dropped by hand.")));
    drop_triggers(oids);
    table_close(rel, NoLock);
    PG_RETURN_VOID();
}
