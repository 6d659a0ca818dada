#include "capture/capture_state.hpp"

#include "intake/publish.hpp"
#include "source/log/payload_tokens.hpp"

extern "C" {
#include "access/genam.h"
#include "catalog/indexing.h"
#include "catalog/pg_trigger.h"
#include "commands/dbcommands.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
}

namespace eventbus::capture {

namespace {

HTAB* states;
bool changed;  // something has, since it was set to false

template <typename Concerns>
void outdate(Concerns concerns) {
    changed = true;
    HASH_SEQ_STATUS scan;
    hash_seq_init(&scan, states);
    while (auto* state = static_cast<CaptureState*>(hash_seq_search(&scan)))
        if (state->memory != nullptr && concerns(*state)) state->stale = true;
}

void table_changed(Datum, Oid relation) {
    outdate([=](const CaptureState& state) {
        return relation == InvalidOid || relation == state.relations[0] || relation == state.relations[1] ||
               list_member_oid(state.walk->relations, relation);
    });
}

void schema_changed(Datum, int, uint32) {
    table_changed(Datum(0), InvalidOid);
}

void function_changed(Datum, int cache, uint32 hash) {
    outdate([=](const CaptureState& state) { return depends_on(*state.walk, cache, hash); });
}

void prepare_states() {
    HASHCTL control = {};
    control.keysize = sizeof(Oid);
    control.entrysize = sizeof(CaptureState);
    control.hcxt = TopMemoryContext;
    states = hash_create("pg_eventbus captured tables", 32, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
    CacheRegisterRelcacheCallback(table_changed, Datum(0));
    CacheRegisterSyscacheCallback(NAMESPACEOID, schema_changed, Datum(0));
    CacheRegisterSyscacheCallback(PROCOID, function_changed, Datum(0));
    CacheRegisterSyscacheCallback(CASTSOURCETARGET, function_changed, Datum(0));
}

// The table on which somebody made this trigger: a partition's trigger is a copy of its parent's.
Oid table_of_origin(const Trigger* trigger, Oid relation) {
    Oid oid = trigger->tgoid;
    Relation triggers = table_open(TriggerRelationId, AccessShareLock);
    while (OidIsValid(oid)) {
        ScanKeyData key;
        ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
        SysScanDesc scan = systable_beginscan(triggers, TriggerOidIndexId, true, nullptr, 1, &key);
        HeapTuple tuple = systable_getnext(scan);
        oid = InvalidOid;
        if (HeapTupleIsValid(tuple)) {
            auto* form = reinterpret_cast<Form_pg_trigger>(GETSTRUCT(tuple));
            relation = form->tgrelid;
            oid = form->tgparentid;
        }
        systable_endscan(scan);
    }
    table_close(triggers, AccessShareLock);
    return relation;
}

void look_up_columns(CaptureState* state, Relation rel, const CaptureArguments& arguments) {
    TupleDesc row = RelationGetDescr(rel);
    List* key = arguments.key != NIL ? arguments.key : identity_columns(rel);
    state->columns = static_cast<CapturedColumn*>(palloc0(sizeof(CapturedColumn) * (row->natts + 1)));
    state->key = static_cast<int*>(palloc0(sizeof(int) * (row->natts + 1)));
    for (int i = 0; i < row->natts; ++i) {
        Form_pg_attribute attribute = TupleDescAttr(row, i);
        constexpr char computed_when_read = 'v';  // PostgreSQL 18's virtual columns: rows do not hold them
        if (attribute->attisdropped || attribute->attgenerated == computed_when_read) continue;
        const char* name = NameStr(attribute->attname);
        CapturedColumn* column = &state->columns[state->column_count];
        column->index = i;
        StringInfoData quoted;
        initStringInfo(&quoted);
        append_json_string(&quoted, name);
        column->name = quoted.data;
        column->name_length = quoted.len;
        column->shown =
            arguments.columns.names == NIL || is_member(arguments.columns.names, name) != arguments.columns.except;
        column->length = attribute->attlen;
        column->by_value = attribute->attbyval;
        look_up_json_type(attribute->atttypid, state->walk, &column->json);
        column->in_key = is_member(key, name);
        if (column->in_key) look_up_output(state->walk, attribute->atttypid, &column->output);
        ++state->column_count;
    }
    ListCell* cell;
    foreach (cell, key)
        for (int i = 0; i < state->column_count; ++i)
            if (strcmp(NameStr(TupleDescAttr(row, state->columns[i].index)->attname),
                       static_cast<char*>(lfirst(cell))) == 0)
                state->key[state->key_count++] = i;
}

// Whether topic, schema and table say the same: the topic is schema.table.operation, word by word, and the names are
// in JSON what they are.
bool topic_names_subject(std::string_view topic, const char* schema, const char* table, const char* operation) {
    for (const char* name : {schema, table}) {
        StringInfoData quoted;
        initStringInfo(&quoted);
        append_json_string(&quoted, name);
        auto length = strlen(name);
        if (static_cast<std::size_t>(quoted.len) != length + 2 || strchr(name, '.') != nullptr) return false;
    }
    return topic == psprintf("%s.%s.%s", schema, table, operation);
}

// What an operation publishes under, and as what.
void look_up_operation(CaptureState* state, Operation operation, const char* pattern, const char* schema,
                       const char* table) {
    static constexpr const char* names[operation_count] = {"insert", "update", "delete", "truncate"};
    static constexpr char letters[operation_count] = {'c', 'u', 'd', 't'};
    int i = static_cast<int>(operation);
    char* topic = capture_topic(pattern, schema, table, names[i]);
    state->topics[i] = cstring_to_text(topic);
    StringInfoData source;
    initStringInfo(&source);
    if (topic_names_subject(topic, schema, table, names[i])) {
        put(&source, log::PayloadToken::subject);
    } else {
        put(&source, log::PayloadToken::source);
        append_json_string(&source, schema);
        put(&source, log::PayloadToken::table);
        append_json_string(&source, table);
        put(&source, log::PayloadToken::transaction);
        put(&source, letters[i]);
        put(&source, log::PayloadToken::time);
    }
    state->sources[i] = {source.data, source.len};
}

void look_up(CaptureState* state, TriggerData* fired) {
    Relation rel = fired->tg_relation;
    CaptureArguments arguments = read_capture_arguments(fired->tg_trigger->tgnargs, fired->tg_trigger->tgargs);
    check_published_columns(rel, arguments.columns);
    check_columns(rel, arguments.key, "key");
    state->relations[0] = RelationGetRelid(rel);
    state->relations[1] = table_of_origin(fired->tg_trigger, RelationGetRelid(rel));
    state->payload = arguments.payload;
    state->unchanged = arguments.unchanged;
    const char* table = get_rel_name(state->relations[1]);
    const char* schema = get_namespace_name(get_rel_namespace(state->relations[1]));
    for (auto operation : {Operation::insert, Operation::update, Operation::remove, Operation::truncate})
        look_up_operation(state, operation, arguments.topic, schema, table);
    look_up_columns(state, rel, arguments);
    if (arguments.headers == nullptr) return;
    state->extra_headers = DirectFunctionCall1(jsonb_in, CStringGetDatum(arguments.headers));
    intake::check_headers(state->extra_headers);
}

}  // namespace

CaptureState* capture_state(TriggerData* fired) {
    // Entries stay where they are, and most rows come from the table that the last one came from.
    static CaptureState* last = nullptr;
    Oid oid = fired->tg_trigger->tgoid;
    if (last != nullptr && last->trigger == oid && last->memory != nullptr && !last->stale) return last;
    if (states == nullptr) prepare_states();
    bool known;
    auto* state = static_cast<CaptureState*>(hash_search(states, &oid, HASH_ENTER, &known));
    if (known && state->memory != nullptr && !state->stale) return last = state;

    // A trigger further up the stack may still use the old one, which has come to an error or a change just now.
    if (known && state->memory != nullptr) MemoryContextSetParent(state->memory, TopTransactionContext);
    *state = {};
    state->trigger = oid;
    MemoryContext memory = AllocSetContextCreate(TopMemoryContext, "pg_eventbus captured table", ALLOCSET_SMALL_SIZES);
    // Until it is complete it counts as stale, and its memory goes with the transaction.
    MemoryContextSetParent(memory, TopTransactionContext);
    CaptureState made = {};
    made.trigger = oid;
    made.memory = memory;
    MemoryContext before = MemoryContextSwitchTo(memory);
    made.walk = static_cast<JsonWalk*>(palloc0(sizeof(JsonWalk)));
    made.walk->memory = memory;
    changed = false;
    look_up(&made, fired);
    MemoryContextSwitchTo(before);
    MemoryContextSetParent(memory, TopMemoryContext);
    // Other states may have come and gone meanwhile, and this one's place with them.
    state = static_cast<CaptureState*>(hash_search(states, &oid, HASH_ENTER, &known));
    made.stale = changed;
    *state = made;
    return state;
}

}  // namespace eventbus::capture
