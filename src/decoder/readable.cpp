#include "decoder/readable.hpp"

extern "C" {
#include "access/transam.h"
#include "catalog/pg_language_d.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "utils/lsyscache.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
}

namespace eventbus::decoder {

namespace {

// PostgreSQL's own types, functions and what they are made of need no look.
bool is_own(Oid oid) {
    return oid < FirstNormalObjectId;
}

List* with(List* types, Oid type) {
    return is_own(type) ? types : list_append_unique_oid(types, type);
}

// One that is missing is an error when it is called.
bool is_in_c(Oid function) {
    if (is_own(function)) return true;
    HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
    if (!HeapTupleIsValid(tuple)) return true;
    Oid language = reinterpret_cast<Form_pg_proc>(GETSTRUCT(tuple))->prolang;
    ReleaseSysCache(tuple);
    return language == INTERNALlanguageId || language == ClanguageId;
}

List* with_columns(List* types, RelationPlan* plan, Oid row_type) {
    Oid relation_oid = get_typ_typrelid(row_type);
    Relation relation = RelationIdGetRelation(relation_oid);
    if (!RelationIsValid(relation)) elog(ERROR, "could not open relation with OID %u", relation_oid);
    plan->walk.relations = list_append_unique_oid(plan->walk.relations, relation_oid);
    TupleDesc row = RelationGetDescr(relation);
    for (int i = 0; i < row->natts; ++i)
        if (!TupleDescAttr(row, i)->attisdropped) types = with(types, TupleDescAttr(row, i)->atttypid);
    RelationClose(relation);
    return types;
}

}  // namespace

// Each type once, for a row may have many ways to the same one, and in a list, for they may lie deep.
bool is_readable(RelationPlan* plan, Oid type) {
    List* types = with(NIL, type);
    for (int i = 0; i < list_length(types); ++i) {
        Oid one = list_nth_oid(types, i);
        HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(one));
        if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for type %u", one);
        auto* form = reinterpret_cast<Form_pg_type>(GETSTRUCT(tuple));
        const Oid output = form->typoutput;
        const Oid base = form->typbasetype;
        const char kind = form->typtype;
        ReleaseSysCache(tuple);
        note_function(&plan->walk, output);
        if (!is_in_c(output)) return false;  // what has been noted by then is enough
        types = with(types, base);
        types = with(types, get_element_type(one));
        if (kind == TYPTYPE_RANGE) types = with(types, get_range_subtype(one));
        if (kind == TYPTYPE_MULTIRANGE) types = with(types, get_multirange_range(one));
        if (kind == TYPTYPE_COMPOSITE) types = with_columns(types, plan, one);
    }
    list_free(types);
    return true;
}

void note_unreadable(RelationPlan* plan, const char* column, const Options& options) {
    plan->any_unreadable = true;
    if (!options.leaves_out_unreadable) return;
    ereport(WARNING,
            (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
             errmsg("values of column \"%s\" of table \"%s\".\"%s\" are left out", column, plan->schema, plan->table),
             errdetail("The output function of their type is not written in C."),
             errhint("Add a column that holds them as text.")));
}

void refuse_unreadable(const RelationPlan& plan, const Change& change) {
    for (int i = 0; i < plan.column_count; ++i) {
        const Column& column = plan.columns[i];
        if (!column.unreadable) continue;
        for (const Row* row : {change.before, change.after})
            if (row != nullptr && !row->nulls[column.index])
                ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                                errmsg("the output function of the type of column %.*s is not written in C",
                                       column.name.length, column.name.text)));
    }
}

}  // namespace eventbus::decoder
