#include "decoder/publication.hpp"

extern "C" {
#include "catalog/partition.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_publication_rel.h"
#include "executor/executor.h"
#include "nodes/bitmapset.h"
#include "nodes/makefuncs.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
}

namespace eventbus::decoder {

class Publications {
 public:
    MemoryContext memory;
    List* names;
    bool tell;    // of those that do not exist
    List* found;  // of Publication*
    bool stale;
    bool complete;  // not where looking them up was broken off by an error
};

inline constexpr int filtered_operations = 3;  // TRUNCATE has no rows

struct RowFilters {
    ExprState* conditions[filtered_operations];  // nullptr: every row
    EState* executor;
    TupleTableSlot* slot;  // of the published table's row type
    int* sources;          // where its columns are in our rows; -1 where they are not
    int count;             // of our rows' columns
    bool* varlena;
    Row complete;
};

namespace {

void load(Publications* publications) {
    if (!publications->stale && publications->complete) return;
    publications->complete = false;
    MemoryContextReset(publications->memory);
    MemoryContext before = MemoryContextSwitchTo(publications->memory);
    publications->found = NIL;
    publications->stale = false;
    ListCell* cell;
    foreach (cell, publications->names) {
        auto* name = static_cast<char*>(lfirst(cell));
        if (Publication* publication = GetPublicationByName(name, true))
            publications->found = lappend(publications->found, publication);
        else if (publications->tell)
            ereport(WARNING, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("publication \"%s\" does not exist", name),
                              errdetail("It publishes nothing at this place in the WAL."),
                              errhint("Changes made before a publication is created are not published by it.")));
    }
    MemoryContextSwitchTo(before);
    publications->complete = true;
}

// Whether a publication has the table, and as what: itself or an ancestor, so many levels up.
bool publishes(const Publication* publication, Relation relation, List* ancestors, List* direct, Oid* as, int* level) {
    *as = RelationGetRelid(relation);
    *level = 0;
    bool found = publication->alltables || list_member_oid(direct, publication->oid);
    Oid top = InvalidOid;
    int top_level = 0;
    if (ancestors != NIL && publication->alltables) {
        top = llast_oid(ancestors);
        top_level = list_length(ancestors);
    } else if (ancestors != NIL) {
        top = GetTopMostAncestorInPublication(publication->oid, ancestors, &top_level);
    }
    if (OidIsValid(top) && publication->pubviaroot) {
        *as = top;
        *level = top_level;
    }
    found = found || OidIsValid(top);
    return found && (relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE || publication->pubviaroot);
}

// The publication's entry for the table; InvalidOid's where it has all tables, or its schema's.
HeapTuple entry_of(const Publication* publication, Oid relation) {
    if (publication->alltables) return nullptr;
    if (SearchSysCacheExists2(PUBLICATIONNAMESPACEMAP, ObjectIdGetDatum(get_rel_namespace(relation)),
                              ObjectIdGetDatum(publication->oid)))
        return nullptr;
    return SearchSysCache2(PUBLICATIONRELMAP, ObjectIdGetDatum(relation), ObjectIdGetDatum(publication->oid));
}

void get_actions(const Publication* publication, bool* operations) {
    const PublicationActions& actions = publication->pubactions;
    operations[static_cast<int>(Operation::insert)] = actions.pubinsert;
    operations[static_cast<int>(Operation::update)] = actions.pubupdate;
    operations[static_cast<int>(Operation::remove)] = actions.pubdelete;
    operations[static_cast<int>(Operation::truncate)] = actions.pubtruncate;
}

// Through the relation cache alone: decoding takes no locks.
Relation open_published(Oid oid) {
    Relation published = RelationIdGetRelation(oid);
    if (!RelationIsValid(published)) elog(ERROR, "could not open relation with OID %u", oid);
    return published;
}

bool names_all_columns(const Bitmapset* columns, Relation published) {
    TupleDesc row = RelationGetDescr(published);
    for (int i = 0; columns != nullptr && i < row->natts; ++i) {
        Form_pg_attribute attribute = TupleDescAttr(row, i);
        if (!attribute->attisdropped && !bms_is_member(attribute->attnum, columns)) return false;
    }
    return true;
}

RowFilters* make_filters(Relation relation, Relation published, List* const* texts) {
    if (texts[0] == NIL && texts[1] == NIL && texts[2] == NIL) return nullptr;
    auto* filters = static_cast<RowFilters*>(palloc0(sizeof(RowFilters)));
    TupleDesc row = CreateTupleDescCopy(RelationGetDescr(published));
    filters->slot = MakeSingleTupleTableSlot(row, &TTSOpsVirtual);
    filters->sources = static_cast<int*>(palloc(sizeof(int) * static_cast<Size>(row->natts + 1)));
    for (int i = 0; i < row->natts; ++i) {
        Form_pg_attribute attribute = TupleDescAttr(row, i);
        AttrNumber own = attribute->attisdropped ? AttrNumber(InvalidAttrNumber)
                         : published == relation ? attribute->attnum
                                                 : get_attnum(RelationGetRelid(relation), NameStr(attribute->attname));
        filters->sources[i] = own - 1;
    }
    TupleDesc own_row = RelationGetDescr(relation);
    filters->count = own_row->natts;
    filters->varlena = static_cast<bool*>(palloc0(sizeof(bool) * static_cast<Size>(own_row->natts + 1)));
    filters->complete = make_row(own_row->natts);
    for (int i = 0; i < own_row->natts; ++i) filters->varlena[i] = TupleDescAttr(own_row, i)->attlen == -1;
    filters->executor = CreateExecutorState();
    for (int i = 0; i < filtered_operations; ++i) {
        List* conditions = NIL;
        ListCell* cell;
        foreach (cell, texts[i]) conditions = lappend(conditions, stringToNode(static_cast<char*>(lfirst(cell))));
        if (conditions == NIL) continue;
        auto* any = list_length(conditions) == 1 ? static_cast<Expr*>(linitial(conditions))
                                                 : makeBoolExpr(OR_EXPR, conditions, -1);
        filters->conditions[i] = ExecPrepareExpr(any, filters->executor);
    }
    return filters;
}

// What the entries of the chosen publications say of columns and rows.
void look_up_entries(Publishing* result, Relation relation, List* chosen) {
    List* texts[filtered_operations] = {};
    bool every_row[filtered_operations] = {};
    bool first = true;
    Relation published = open_published(result->as);
    ListCell* cell;
    foreach (cell, chosen) {
        auto* publication = static_cast<Publication*>(lfirst(cell));
        HeapTuple entry = entry_of(publication, result->as);
        char* filter = nullptr;
        Bitmapset* columns = nullptr;
        if (HeapTupleIsValid(entry)) {
            bool null;
            Datum value = SysCacheGetAttr(PUBLICATIONRELMAP, entry, Anum_pg_publication_rel_prqual, &null);
            if (!null) filter = TextDatumGetCString(value);
            value = SysCacheGetAttr(PUBLICATIONRELMAP, entry, Anum_pg_publication_rel_prattrs, &null);
            if (!null) columns = pub_collist_to_bitmapset(nullptr, value, CurrentMemoryContext);
            ReleaseSysCache(entry);
        }
        bool operations[operation_count];
        get_actions(publication, operations);
        for (int i = 0; i < filtered_operations; ++i) {
            if (!operations[i]) continue;
            if (filter == nullptr) every_row[i] = true;
            if (filter != nullptr) texts[i] = lappend(texts[i], filter);
        }
        if (names_all_columns(columns, published)) columns = nullptr;
        if (!first && !bms_equal(columns, result->columns))
            ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                            errmsg("cannot use different column lists for table \"%s.%s\" in different publications",
                                   get_namespace_name(get_rel_namespace(result->as)), get_rel_name(result->as)),
                            errhint("Name publications in publication_names that agree on the table's columns.")));
        result->columns = columns;
        first = false;
    }
    for (int i = 0; i < filtered_operations; ++i)
        if (every_row[i]) texts[i] = NIL;
    result->filters = make_filters(relation, published, texts);
    RelationClose(published);
}

bool fits_condition(RelationPlan* plan, ExprState* condition, const Row& row) {
    RowFilters* filters = plan->filters;
    TupleTableSlot* slot = filters->slot;
    ExecClearTuple(slot);
    for (int i = 0; i < slot->tts_tupleDescriptor->natts; ++i) {
        int from = filters->sources[i];
        slot->tts_values[i] = from < 0 ? Datum(0) : row.values[from];
        slot->tts_isnull[i] = from < 0 || row.nulls[from];
    }
    ExecStoreVirtualTuple(slot);
    ExprContext* context = GetPerTupleExprContext(filters->executor);
    context->ecxt_scantuple = slot;
    bool null;
    Datum result = ExecEvalExprSwitchContext(condition, context, &null);
    bool fit = !null && DatumGetBool(result);
    ExecClearTuple(slot);
    ResetPerTupleExprContext(filters->executor);
    return fit;
}

// The new row as a whole, as far as the old one has what the UPDATE did not touch.
const Row& complete_row(RelationPlan* plan) {
    RowFilters* filters = plan->filters;
    const Row& before = plan->before;
    const Row& after = plan->after;
    for (int i = 0; i < filters->count; ++i) {
        bool take = filters->varlena[i] && is_untouched(after, i) && !before.nulls[i];
        filters->complete.values[i] = take ? before.values[i] : after.values[i];
        filters->complete.nulls[i] = after.nulls[i];
    }
    return filters->complete;
}

}  // namespace

Publications* make_publications(MemoryContext memory, List* names, bool tell) {
    auto* made = static_cast<Publications*>(MemoryContextAllocZero(memory, sizeof(Publications)));
    made->memory = AllocSetContextCreate(memory, "pg_eventbus publications", ALLOCSET_SMALL_SIZES);
    made->names = names;
    made->tell = tell;
    made->stale = true;
    return made;
}

void outdate_publications(Publications* publications) {
    publications->stale = true;
}

Publishing look_up_publishing(Publications* publications, Relation relation) {
    load(publications);
    Oid oid = RelationGetRelid(relation);
    List* ancestors = relation->rd_rel->relispartition ? get_partition_ancestors(oid) : NIL;
    List* direct = list_concat(GetRelationPublications(oid), GetSchemaPublications(RelationGetNamespace(relation)));
    Publishing result = {};
    result.as = oid;
    if (!is_publishable_relation(relation)) return result;
    List* chosen = NIL;
    int highest = 0;
    ListCell* cell;
    foreach (cell, publications->found) {
        auto* publication = static_cast<Publication*>(lfirst(cell));
        Oid as;
        int level;
        if (!publishes(publication, relation, ancestors, direct, &as, &level)) continue;
        bool operations[operation_count];
        get_actions(publication, operations);
        for (int i = 0; i < operation_count; ++i) result.operations[i] |= operations[i];
        result.any = true;
        // The publication that shows the topmost ancestor says how all see the table.
        if (level < highest) continue;
        if (level > highest) chosen = NIL;
        highest = level;
        result.as = as;
        chosen = lappend(chosen, publication);
    }
    // TRUNCATE has neither columns nor rows.
    bool rows = result.operations[0] || result.operations[1] || result.operations[2];
    if (rows) look_up_entries(&result, relation, chosen);
    return result;
}

bool pass_row_filters(RelationPlan* plan, Operation* operation, bool has_before) {
    ExprState* condition = plan->filters->conditions[static_cast<int>(*operation)];
    if (condition == nullptr) return true;
    if (*operation == Operation::insert) return fits_condition(plan, condition, plan->after);
    if (*operation == Operation::remove) return !has_before || fits_condition(plan, condition, plan->before);
    if (!has_before) return fits_condition(plan, condition, plan->after);
    bool fitted = fits_condition(plan, condition, plan->before);
    const Row& complete = complete_row(plan);
    bool fits_now = fits_condition(plan, condition, complete);
    if (!fitted && fits_now) {
        *operation = Operation::insert;
        memcpy(plan->after.values, complete.values, sizeof(Datum) * static_cast<Size>(plan->filters->count));
    }
    if (fitted && !fits_now) *operation = Operation::remove;
    return fitted || fits_now;
}

}  // namespace eventbus::decoder
