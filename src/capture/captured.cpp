// What it is: what the view eventbus.captured shows of a trigger: its arguments and its condition.
// Who calls it: the view.
// Never: fails because of a trigger that somebody made by hand, or waits for a lock on its table.
#include <initializer_list>

#include "capture/capture.hpp"
#include "intake/publish.hpp"
#include "postgres/attempt.hpp"
#include "postgres/compat.hpp"

extern "C" {
#include "access/detoast.h"
#include "access/genam.h"
#include "access/sysattr.h"
#include "catalog/heap.h"
#include "catalog/indexing.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/plannodes.h"
#include "nodes/value.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
}

namespace eventbus::capture {

namespace {

// Told before they are fetched.
bool are_too_long(Datum packed) {
    return toast_raw_datum_size(packed) > longest_arguments + VARHDRSZ;
}

void check_names(Oid relation, List* names, const char* argument) {
    ListCell* cell;
    foreach (cell, names)
        if (get_attnum(relation, static_cast<char*>(lfirst(cell))) == InvalidAttrNumber)
            ereport(ERROR, (errmsg("column \"%s\" does not exist", static_cast<char*>(lfirst(cell))),
                            errdetail("It stands in the capture's %s.", argument)));
}

// As the trigger does when it fires.
void check_arguments(Oid relation, List* texts) {
    auto** arguments = static_cast<char**>(palloc(sizeof(char*) * (static_cast<Size>(list_length(texts)) + 1)));
    int count = 0;
    ListCell* cell;
    foreach (cell, texts) arguments[count++] = static_cast<char*>(lfirst(cell));
    CaptureArguments read = read_capture_arguments(count, arguments);
    if (!read.columns.except) check_names(relation, read.columns.names, "columns");
    check_names(relation, read.key, "key");
    const char* schema = get_namespace_name(get_rel_namespace(relation));
    const char* table = get_rel_name(relation);
    if (schema == nullptr || table == nullptr) return;  // dropped just now
    for (const char* operation : {"insert", "update", "delete", "truncate"})
        (void)capture_topic(read.topic, schema, table, operation);
    if (read.headers != nullptr) intake::check_headers(DirectFunctionCall1(jsonb_in, CStringGetDatum(read.headers)));
}

// Columns of PostgreSQL's own come behind those of the table.
Node* with_system_columns_last(Node* node, void* last_column) {
    if (node == nullptr) return nullptr;
    if (IsA(node, Var) && reinterpret_cast<Var*>(node)->varattno < 0) {
        auto* column = static_cast<Var*>(copyObjectImpl(node));
        column->varattno = column->varattnosyn =
            static_cast<AttrNumber>(*static_cast<AttrNumber*>(last_column) - column->varattno);
        return reinterpret_cast<Node*>(column);
    }
    return compat::mutate_expression(node, with_system_columns_last, last_column);
}

List* column_names(Oid relation, AttrNumber last_column) {
    List* names = NIL;
    for (AttrNumber i = 1; i <= last_column; ++i) {
        char* name = get_attname(relation, i, true);
        names = lappend(names, makeString(name != nullptr ? name : pstrdup("")));
    }
    for (AttrNumber i = -1; i > FirstLowInvalidHeapAttributeNumber; --i)
        names = lappend(names, makeString(pstrdup(NameStr(SystemAttributeDefinition(i)->attname))));
    return names;
}

// As pg_get_triggerdef has it, which opens the table for the names of its columns. Here they come out of the catalog,
// and what the two rows are of is not told. Where the expression takes a row of another table apart, that one is
// opened.
char* condition_words(Oid relation, Node* condition) {
    HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
    if (!HeapTupleIsValid(tuple)) return nullptr;  // dropped just now
    AttrNumber last_column = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relnatts;
    ReleaseSysCache(tuple);
    auto* rows = makeNode(PlannedStmt);
    List* row_names = NIL;
    for (const char* name : {"old", "new"}) {  // by number PRS2_OLD_VARNO and PRS2_NEW_VARNO
        auto* row = makeNode(RangeTblEntry);
        row->rtekind = RTE_VALUES;
        row->eref = makeAlias(name, column_names(relation, last_column));
        rows->rtable = lappend(rows->rtable, row);
        row_names = lappend(row_names, pstrdup(name));
    }
    constexpr bool prefix = true;
    constexpr bool implicit_casts = false;
    return deparse_expression(with_system_columns_last(condition, &last_column),
                              deparse_context_for_plan_tree(rows, row_names), prefix, implicit_casts);
}

// nullptr: there is none, or no such trigger any more.
char* condition_of(Oid trigger) {
    char* words = nullptr;
    Relation triggers = table_open(TriggerRelationId, AccessShareLock);
    ScanKeyData key;
    ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(trigger));
    SysScanDesc scan = systable_beginscan(triggers, TriggerOidIndexId, true, nullptr, 1, &key);
    if (HeapTuple tuple = systable_getnext(scan)) {
        bool null;
        Datum condition = fastgetattr(tuple, Anum_pg_trigger_tgqual, RelationGetDescr(triggers), &null);
        if (!null)
            words = condition_words(reinterpret_cast<Form_pg_trigger>(GETSTRUCT(tuple))->tgrelid,
                                    static_cast<Node*>(stringToNode(TextDatumGetCString(condition))));
    }
    systable_endscan(scan);
    table_close(triggers, AccessShareLock);
    return words;
}

}  // namespace

}  // namespace eventbus::capture

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_trigger_arguments);
EVENTBUS_SQL_FUNCTION(eventbus_trigger_condition);
EVENTBUS_SQL_FUNCTION(eventbus_trigger_error);
}

using namespace eventbus;
using namespace eventbus::capture;

Datum eventbus_trigger_arguments(PG_FUNCTION_ARGS) {
    if (are_too_long(PG_GETARG_DATUM(0))) PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));
    List* texts = split_arguments(PG_GETARG_BYTEA_PP(0));
    const Size size = (static_cast<Size>(list_length(texts)) + 1);
    auto* values = static_cast<Datum*>(palloc0(sizeof(Datum) * size));
    auto* nulls = static_cast<bool*>(palloc0(sizeof(bool) * size));
    int count = 0;
    ListCell* cell;
    foreach (cell, texts) {
        const char* text = static_cast<char*>(lfirst(cell));
        nulls[count] = !pg_verifymbstr(text, static_cast<int>(strlen(text)), true);
        if (!nulls[count]) values[count] = CStringGetTextDatum(text);
        ++count;
    }
    if (count == 0) PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));
    int begin = 1;
    PG_RETURN_ARRAYTYPE_P(construct_md_array(values, nulls, 1, &count, &begin, TEXTOID, -1, false, TYPALIGN_INT));
}

Datum eventbus_trigger_error(PG_FUNCTION_ARGS) {
    const Oid relation = PG_GETARG_OID(0);
    if (are_too_long(PG_GETARG_DATUM(1))) PG_RETURN_TEXT_P(cstring_to_text("the arguments are longer than 4 MB"));
    List* texts = split_arguments(PG_GETARG_BYTEA_PP(1));
    ListCell* cell;
    foreach (cell, texts)
        if (const char* text = static_cast<char*>(lfirst(cell));
            !pg_verifymbstr(text, static_cast<int>(strlen(text)), true))
            PG_RETURN_TEXT_P(cstring_to_text("an argument is no text in the database's encoding"));
    ErrorData* error = attempt([&] { check_arguments(relation, texts); });
    if (error == nullptr) PG_RETURN_NULL();
    PG_RETURN_TEXT_P(cstring_to_text(error_words(error)));
}

Datum eventbus_trigger_condition(PG_FUNCTION_ARGS) {
    TupleDesc result;
    if (get_call_result_type(fcinfo, nullptr, &result) != TYPEFUNC_COMPOSITE) elog(ERROR, "the result is no row");
    const Oid trigger = PG_GETARG_OID(0);
    char* words = nullptr;
    const ErrorData* error = attempt_without_waiting([&] { words = condition_of(trigger); });
    Datum values[2] = {};
    bool nulls[2] = {words == nullptr || error != nullptr, error == nullptr};
    if (!nulls[0]) values[0] = CStringGetTextDatum(words);
    if (!nulls[1])
        values[1] = CStringGetTextDatum(psprintf("the condition cannot be shown now: %s",
                                                 error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE
                                                     ? "it looks into a row of another table, and that is locked"
                                                     : error_words(error)));
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(result), values, nulls)));
}
