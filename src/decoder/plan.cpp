#include "decoder/plan.hpp"

#include "decoder/publication.hpp"
#include "decoder/readable.hpp"

extern "C" {
#include "access/sysattr.h"
#include "nodes/bitmapset.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
}

namespace eventbus::decoder {

class Plans {
 public:
    MemoryContext memory;
    const Options* options;
    PreparePlan prepare;
    AskForTable ask;
    HTAB* table;  // of Entry
    RelationPlan* last;
    RelationPlan* stale;         // the first of those
    RelationPlan* unfinished;    // which is being looked up, or the look-up was broken off by an error
    bool interwoven;             // some plan depends on other relations than its table
    Publications* publications;  // nullptr: not asked for
    MemoryContextCallback gone;
    Plans* next;
};

namespace {

Plans* all_plans;  // whom invalidations have to tell

// What is not stale is in the table of plans, and whole.
struct Entry {
    Oid relation;  // the hash key
    RelationPlan* plan;
};

void outdate(Plans* plans, RelationPlan* plan) {
    if (plan->stale) return;
    plan->stale = true;
    plan->next = plans->stale;
    plans->stale = plan;
}

template <typename Concerns>
void outdate_all(Plans* plans, Concerns concerns) {
    if (plans->unfinished != nullptr && concerns(plans->unfinished)) plans->unfinished->stale = true;
    HASH_SEQ_STATUS scan;
    hash_seq_init(&scan, plans->table);
    while (auto* entry = static_cast<Entry*>(hash_seq_search(&scan)))
        if (concerns(entry->plan)) outdate(plans, entry->plan);
}

void outdate(Plans* plans, Oid relation) {
    // What a default's text says of a sequence or function changes with those.
    if (plans->options->include_default) relation = InvalidOid;
    auto concerns = [relation](const RelationPlan* plan) {
        return relation == InvalidOid || plan->relation == relation || plan->published == relation ||
               list_member_oid(plan->walk.relations, relation);
    };
    if (relation == InvalidOid || plans->interwoven) return outdate_all(plans, concerns);
    if (plans->unfinished != nullptr && concerns(plans->unfinished)) plans->unfinished->stale = true;
    auto* entry = static_cast<Entry*>(hash_search(plans->table, &relation, HASH_FIND, nullptr));
    if (entry != nullptr) outdate(plans, entry->plan);
}

// Tables that are dropped, and what plans were before tables changed. Nobody uses a plan meanwhile.
void let_go_of_stale(Plans* plans) {
    plans->last = nullptr;
    while (RelationPlan* plan = plans->stale) {
        plans->stale = plan->next;
        (void)hash_search(plans->table, &plan->relation, HASH_REMOVE, nullptr);
        MemoryContextDelete(plan->memory);
    }
}

void table_changed(Datum, Oid relation) {
    for (Plans* plans = all_plans; plans != nullptr; plans = plans->next) outdate(plans, relation);
}

void catalog_changed(Datum, int, uint32) {
    table_changed(Datum(0), InvalidOid);
}

void function_changed(Datum, int cache, uint32 hash) {
    for (Plans* plans = all_plans; plans != nullptr; plans = plans->next)
        outdate_all(plans, [=](const RelationPlan* plan) {
            return plans->options->include_default || depends_on(plan->walk, cache, hash);
        });
}

void publication_changed(Datum, int, uint32) {
    for (Plans* plans = all_plans; plans != nullptr; plans = plans->next) {
        if (plans->publications == nullptr) continue;
        outdate_publications(plans->publications);
        outdate(plans, InvalidOid);
    }
}

void watch_catalog() {
    static bool watching;
    if (watching) return;
    CacheRegisterRelcacheCallback(table_changed, Datum(0));
    CacheRegisterSyscacheCallback(NAMESPACEOID, catalog_changed, Datum(0));
    CacheRegisterSyscacheCallback(TYPEOID, catalog_changed, Datum(0));
    CacheRegisterSyscacheCallback(PROCOID, function_changed, Datum(0));
    CacheRegisterSyscacheCallback(CASTSOURCETARGET, function_changed, Datum(0));
    CacheRegisterSyscacheCallback(OPEROID, function_changed, Datum(0));
    CacheRegisterSyscacheCallback(COLLOID, function_changed, Datum(0));
    CacheRegisterSyscacheCallback(PUBLICATIONOID, publication_changed, Datum(0));
    CacheRegisterSyscacheCallback(PUBLICATIONRELMAP, publication_changed, Datum(0));
    CacheRegisterSyscacheCallback(PUBLICATIONNAMESPACEMAP, publication_changed, Datum(0));
    watching = true;
}

void forget(void* gone) {
    for (Plans** link = &all_plans; *link != nullptr; link = &(*link)->next)
        if (*link == gone) {
            *link = (*link)->next;
            return;
        }
}

// The columns of an index that are its key, as a bitmap has them. Nothing is locked.
Bitmapset* key_of_index(Oid index_oid) {
    if (!OidIsValid(index_oid)) return nullptr;
    Relation index = RelationIdGetRelation(index_oid);
    if (!RelationIsValid(index)) elog(ERROR, "could not open relation with OID %u", index_oid);
    Bitmapset* key = nullptr;
    for (int i = 0; i < index->rd_index->indnkeyatts; ++i) {
        AttrNumber number = index->rd_index->indkey.values[i];
        if (number != InvalidAttrNumber) key = bms_add_member(key, number - FirstLowInvalidHeapAttributeNumber);
    }
    RelationClose(index);
    return key;
}

// The columns of `published` that are shown; their values stand in `relation`'s rows, which may have another order.
void look_up_columns(RelationPlan* plan, Relation relation, Relation published, const Bitmapset* shown,
                     const Options& options) {
    TupleDesc row = RelationGetDescr(published);
    Bitmapset* identity = key_of_index(relation->rd_replidindex);
    Bitmapset* primary = key_of_index(relation->rd_pkindex);
    plan->whole_identity = identity == nullptr;
    plan->columns = static_cast<Column*>(palloc0(sizeof(Column) * static_cast<Size>(row->natts + 1)));
    for (int i = 0; i < row->natts; ++i) {
        Form_pg_attribute attribute = TupleDescAttr(row, i);
        constexpr char computed_when_read = 'v';  // PostgreSQL 18's virtual columns: rows do not hold them
        if (attribute->attisdropped || attribute->attgenerated == computed_when_read) continue;
        if (shown != nullptr && !bms_is_member(attribute->attnum, shown)) continue;
        AttrNumber own = relation == published ? attribute->attnum
                                               : get_attnum(RelationGetRelid(relation), NameStr(attribute->attname));
        if (own == InvalidAttrNumber) continue;
        Column* column = &plan->columns[plan->column_count++];
        column->index = own - 1;
        column->number = attribute->attnum;
        column->type = attribute->atttypid;
        column->varlena = attribute->attlen == -1;
        column->by_value = attribute->attbyval;
        column->length = attribute->attlen;
        column->in_identity = plan->whole_identity || bms_is_member(own - FirstLowInvalidHeapAttributeNumber, identity);
        column->in_primary_key = bms_is_member(own - FirstLowInvalidHeapAttributeNumber, primary);
        column->unreadable = !is_readable(plan, column->type);
        if (column->unreadable) note_unreadable(plan, NameStr(attribute->attname), options);
        StringInfoData name;
        initStringInfo(&name);
        append_json_string(&name, NameStr(attribute->attname));
        column->name = piece_of(name);
    }
}

// Whether it depends on other relations than its table, or will when it meets values.
bool is_interwoven(const RelationPlan* plan) {
    if (plan->under_ancestor || plan->walk.relations != NIL) return true;
    for (int i = 0; i < plan->column_count; ++i) {
        JsonType::Kind kind = plan->columns[i].json.kind;
        if (kind == JsonType::Kind::array || kind == JsonType::Kind::row) return true;
    }
    return false;
}

void look_up(Plans* plans, RelationPlan* plan, Relation relation) {
    const Options& options = *plans->options;
    (void)RelationGetIndexList(relation);  // sets what is asked for next
    plan->has_identity_index = OidIsValid(relation->rd_replidindex);
    plan->has_primary_key = OidIsValid(relation->rd_pkindex);
    plan->identity_full = relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL;
    for (int i = 0; i < operation_count; ++i) plan->operations[i] = options.actions[i];
    plan->wanted = true;

    Oid as = RelationGetRelid(relation);
    const Bitmapset* shown = nullptr;
    if (plans->publications != nullptr) {
        Publishing publishing = look_up_publishing(plans->publications, relation);
        as = publishing.as;
        shown = publishing.columns;
        plan->filters = publishing.filters;
        plan->wanted = publishing.any;
        for (int i = 0; i < operation_count; ++i) plan->operations[i] &= publishing.operations[i];
    }
    Relation published = as == RelationGetRelid(relation) ? relation : RelationIdGetRelation(as);
    if (!RelationIsValid(published)) elog(ERROR, "could not open relation with OID %u", as);
    plan->under_ancestor = published != relation;
    plan->published = as;
    plan->schema = get_namespace_name(RelationGetNamespace(published));
    plan->table = pstrdup(RelationGetRelationName(published));
    plan->wanted = plan->wanted && wants_table(options, plan->schema, plan->table) &&
                   (plans->ask.asks == nullptr || plans->ask.asks(plans->ask.context, plan));
    if (plan->wanted) {
        look_up_columns(plan, relation, published, shown, options);
        plan->before = make_row(RelationGetDescr(relation)->natts);
        plan->after = make_row(RelationGetDescr(relation)->natts);
        plans->prepare(plan, published, options);
        if (is_interwoven(plan)) plans->interwoven = true;
    }
    if (published != relation) RelationClose(published);
}

// Whole, or none at all: PostgreSQL swallows the error of a transaction that is rolled back meanwhile, and continues
// with the next one. What the look-up had got by then is thrown away.
RelationPlan* make_plan(Plans* plans, Relation relation) {
    let_go_of_stale(plans);
    RelationPlan* plan;
    do {
        if (RelationPlan* broken_off = plans->unfinished) {
            plans->unfinished = nullptr;
            MemoryContextDelete(broken_off->memory);
        }
        MemoryContext memory = AllocSetContextCreate(plans->memory, "pg_eventbus decoded table", ALLOCSET_SMALL_SIZES);
        plan = static_cast<RelationPlan*>(MemoryContextAllocZero(memory, sizeof(RelationPlan)));
        plan->memory = plan->walk.memory = memory;
        plan->walk.in_c_only = true;
        plan->relation = plan->published = RelationGetRelid(relation);
        plans->unfinished = plan;
        MemoryContext before = MemoryContextSwitchTo(memory);
        look_up(plans, plan, relation);
        MemoryContextSwitchTo(before);
    } while (plan->stale);  // looking up may itself meet an invalidation
    static_cast<Entry*>(hash_search(plans->table, &plan->relation, HASH_ENTER, nullptr))->plan = plan;
    plans->unfinished = nullptr;
    return plan;
}

}  // namespace

Plans* make_plans(MemoryContext memory, const Options* options, PreparePlan prepare, AskForTable ask) {
    watch_catalog();
    auto* plans = static_cast<Plans*>(MemoryContextAllocZero(memory, sizeof(Plans)));
    plans->memory = memory;
    plans->options = options;
    plans->prepare = prepare;
    plans->ask = ask;
    HASHCTL control = {};
    control.keysize = sizeof(Oid);
    control.entrysize = sizeof(Entry);
    control.hcxt = memory;
    plans->table = hash_create("pg_eventbus decoded tables", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
    if (options->by_publication)
        plans->publications = make_publications(memory, options->publications, options->tells_of_publications);
    plans->next = all_plans;
    all_plans = plans;
    plans->gone.func = forget;
    plans->gone.arg = plans;
    MemoryContextRegisterResetCallback(memory, &plans->gone);
    return plans;
}

RelationPlan* plan_for(Plans* plans, Relation relation) {
    Oid oid = RelationGetRelid(relation);
    RelationPlan* last = plans->last;
    if (last != nullptr && last->relation == oid && !last->stale) return last;
    auto* known = static_cast<Entry*>(hash_search(plans->table, &oid, HASH_FIND, nullptr));
    plans->last = known != nullptr && !known->plan->stale ? known->plan : make_plan(plans, relation);
    return plans->last;
}

Piece piece_of(const StringInfoData& text) {
    Piece piece = {pnstrdup(text.data, static_cast<Size>(text.len)), text.len};
    pfree(text.data);
    return piece;
}

Row make_row(int count) {
    auto n = static_cast<Size>(count);
    return {static_cast<Datum*>(palloc0(sizeof(Datum) * n)), static_cast<bool*>(palloc0(sizeof(bool) * n))};
}

void take_apart(HeapTuple tuple, Relation relation, Row* row) {
    heap_deform_tuple(tuple, RelationGetDescr(relation), row->values, row->nulls);
}

}  // namespace eventbus::decoder
