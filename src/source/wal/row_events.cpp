// What it is: changes of rows as events: which tables are asked for, their topics and keys, the payload.
// Who calls it: the output plugin's decoder, as one of its formats.
// Never: looks at anything but what the historic snapshot shows; locks a table or an index.
#include "core/topic.hpp"
#include "decoder/readable.hpp"
#include "decoder/wal2json.hpp"
#include "postgres/encoding.hpp"
#include "postgres/envelope.hpp"
#include "postgres/rows.hpp"
#include "settings/settings.hpp"
#include "source/wal/events.hpp"

extern "C" {
#include "commands/dbcommands.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "utils/lsyscache.h"
}

namespace eventbus::wal {

namespace {

// The format that the output plugin does not have.
constexpr const char* row_format = "row";

// What a table's events have in common.
struct TableWords {
    decoder::Column** key;
    Oid* key_types;  // base types
    FmgrInfo* key_output;
    int key_count;
    std::string_view topics[decoder::operation_count];
    const bool* wanted[decoder::operation_count];  // by the shape's takers
    bool any[decoder::operation_count];
};

// What the decoder's plan of a table has to know besides, for who asks for it.
void prepare(decoder::RelationPlan* plan, Relation published, const decoder::Options& options) {
    (options.wal2json ? decoder::wal2json_format_2.prepare : decoder::prepare_envelope)(plan, published, options);
    auto* words = static_cast<TableWords*>(plan->more);
    List* key = identity_columns(published);
    words->key =
        static_cast<decoder::Column**>(palloc0(sizeof(decoder::Column*) * static_cast<Size>(list_length(key) + 1)));
    words->key_output = static_cast<FmgrInfo*>(palloc0(sizeof(FmgrInfo) * static_cast<Size>(list_length(key) + 1)));
    words->key_types = static_cast<Oid*>(palloc0(sizeof(Oid) * static_cast<Size>(list_length(key) + 1)));
    ListCell* cell;
    foreach (cell, key) {
        StringInfoData name;
        initStringInfo(&name);
        append_json_string(&name, static_cast<char*>(lfirst(cell)));
        for (int i = 0; i < plan->column_count; ++i) {
            decoder::Column* column = &plan->columns[i];
            if (column->name.length != name.len ||
                memcmp(column->name.text, name.data, static_cast<Size>(name.len)) != 0)
                continue;
            if (column->unreadable) break;  // there will be no event with a value of it
            Oid output;
            bool varlena;
            getTypeOutputInfo(column->type, &output, &varlena);
            fmgr_info(output, &words->key_output[words->key_count]);
            words->key_types[words->key_count] = getBaseType(column->type);
            words->key[words->key_count++] = column;
        }
    }
    // A publication that leaves out a column of the key leaves out the key: what remains would be another one.
    if (words->key_count < list_length(key)) words->key_count = 0;
}

// Whether any taker of the shape wants anything of the table.
bool asks(void* context, decoder::RelationPlan* plan) {
    auto* shape = static_cast<Shape*>(context);
    auto* words = static_cast<TableWords*>(palloc0(sizeof(TableWords)));
    bool any = false;
    for (int op = 0; op < decoder::operation_count; ++op) {
        words->wanted[op] = takers_of_table(shape->source, shape, plan->schema, plan->table,
                                            static_cast<decoder::Operation>(op), &words->topics[op]);
        for (int i = 0; i < shape->taker_count; ++i) words->any[op] = words->any[op] || words->wanted[op][i];
        // A row filter may make another operation of an UPDATE.
        if (plan->filters == nullptr) plan->operations[op] = plan->operations[op] && words->any[op];
        any = any || words->any[op];
    }
    plan->more = words;
    return any;
}

// Who has the column's value, NULL or not: the new row, or the old one where an UPDATE has not touched what is stored
// out of line: of an identity that is, PostgreSQL always logs the old row. What is not the identity's is NULL there.
const decoder::Row* row_with(const decoder::Column& column, const decoder::Change& change) {
    if (change.after != nullptr && !decoder::is_unavailable(column, *change.after)) return change.after;
    const bool has = change.before != nullptr && column.in_identity && !decoder::is_unavailable(column, *change.before);
    return has ? change.before : nullptr;
}

// A key of what is left of it would be another key, and an event without one keeps no order.
[[noreturn]] void refuse_key_without(const decoder::Column& column) {
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("the WAL does not have its key: column %.*s is stored out of line and was not changed, and "
                           "the replica identity does not have it",
                           column.name.length, column.name.text)));
    pg_unreachable();
}

// *missing: a column of the new row that nobody has.
std::optional<std::string_view> key_of(const TableWords& words, const decoder::Change& change,
                                       const decoder::Column** missing) {
    StringInfoData out;
    initStringInfo(&out);
    out.len = VARHDRSZ;
    bool any = false;
    for (int i = 0; i < words.key_count; ++i) {
        const decoder::Column* column = words.key[i];
        if (i > 0) put(&out, '/');
        const decoder::Row* row = row_with(*column, change);
        if (row == nullptr) {
            if (change.after != nullptr) *missing = column;
            return std::nullopt;
        }
        if (row->nulls[column->index]) continue;
        any = true;
        append_key_part(&out, words.key_types[i], &words.key_output[i], row->values[column->index]);
    }
    if (!any) return std::nullopt;
    text* key = make_event_key(&out);
    return to_utf8({VARDATA(key), VARSIZE(key) - VARHDRSZ});
}

// False where the format has no words for the change.
bool write_payload(Source* source, const Shape* shape, const ReorderBufferTXN* txn, const decoder::RelationPlan& plan,
                   const decoder::Change& change) {
    StringInfo out = &source->payload;
    out->len = 0;
    const decoder::Options& options = shape->decoder.options;
    if (options.wal2json) return decoder::append_wal2json_2(out, plan, change, options, txn);
    if (!shape->rows) {
        decoder::append_change(out, plan, change, source->stamp);
        put(out, '}');
    } else if (change.after != nullptr) {
        decoder::append_after(out, plan, change);
    } else if (change.before != nullptr) {
        decoder::append_before(out, plan, *change.before);
    } else {
        put(out, "null");
    }
    return true;
}

void found_change(decoder::Decoder* decoder, ReorderBufferTXN* txn, decoder::RelationPlan* plan,
                  const decoder::Change& change) {
    auto* shape = reinterpret_cast<Shape*>(decoder);
    Source* source = shape->source;
    auto* words = static_cast<TableWords*>(plan->more);
    int op = static_cast<int>(change.operation);
    if (!words->any[op]) return;
    source->table = plan;
    MemoryContext before = MemoryContextSwitchTo(source->scratch);
    Made* made = source->made;
    made->event.topic = words->topics[op];
    made->wanted = words->wanted[op];
    if (made->event.topic.size() > longest_topic)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("its topic has %zu bytes in UTF-8, and a topic at most %zu", made->event.topic.size(),
                               longest_topic)));
    if (plan->any_unreadable) decoder::refuse_unreadable(*plan, change);
    const decoder::Column* missing = nullptr;
    made->event.key = key_of(*words, change, &missing);
    // Under another name than its own nobody would know it.
    if (!database_is_utf8()) (void)to_utf8(psprintf("%s.%s", plan->schema, plan->table));
    made->done = write_payload(source, shape, txn, *plan, change);
    if (made->done && missing != nullptr) refuse_key_without(*missing);
    if (made->done) made->event.payload = to_utf8({source->payload.data, static_cast<Size>(source->payload.len)});
    made->event.content_type = "application/json";
    made->stamped = !shape->rows && !decoder->options.wal2json;
    MemoryContextSwitchTo(before);
}

const decoder::Format format = {prepare, nullptr, nullptr, nullptr, found_change, found_change, nullptr};

bool same_text(const char* a, const char* b) {
    return a == nullptr || b == nullptr ? a == b : strcmp(a, b) == 0;
}

bool is_row(const Selection& selection) {
    return same_text(selection.format, row_format);
}

bool same(const Selection& a, const Selection& b) {
    return same_text(a.format, b.format) && same_text(a.tables, b.tables) && same_text(a.publication, b.publication) &&
           same_text(a.operations, b.operations) && same_text(a.messages, b.messages) && a.local_only == b.local_only;
}

decoder::Piece source_names() {
    StringInfoData names;
    initStringInfo(&names);
    MemoryContext before = CurrentMemoryContext;
    StartTransactionCommand();
    MemoryContext within = MemoryContextSwitchTo(before);
    append_source_names(&names, settings::source_name(), readable_name(get_database_name(MyDatabaseId)));
    MemoryContextSwitchTo(within);
    CommitTransactionCommand();
    MemoryContextSwitchTo(before);
    return decoder::piece_of(names);
}

Shape* make_shape(Source* source, const Selection& selection, const decoder::Piece& names) {
    auto* shape = static_cast<Shape*>(palloc0(sizeof(Shape)));
    shape->source = source;
    shape->selection = selection;
    shape->rows = is_row(selection);
    shape->takers = static_cast<int*>(palloc0(sizeof(int) * static_cast<Size>(list_length(source->takers))));
    decoder::Decoder& decoder = shape->decoder;
    decoder.memory = AllocSetContextCreate(source->memory, "pg_eventbus decoder", ALLOCSET_DEFAULT_SIZES);
    decoder.scratch = AllocSetContextCreate(source->memory, "pg_eventbus decoded change", ALLOCSET_DEFAULT_SIZES);
    decoder.format = &format;
    read_selection(selection, &decoder.options);
    decoder.options.source_names = names;
    decoder.plans = decoder::make_plans(decoder.memory, &decoder.options, prepare, {asks, shape});
    return shape;
}

}  // namespace

const bool* takers_of_table(const Source* source, const Shape* shape, const char* schema, const char* table,
                            decoder::Operation operation, std::string_view* topic) {
    StringInfoData name;
    initStringInfo(&name);
    append_table_topic(&name, schema, table, operation_words[static_cast<int>(operation)]);
    std::string_view made(name.data, static_cast<Size>(name.len));
    *topic = database_is_utf8() ? made : to_utf8_or_marks(made);
    auto* wanted = static_cast<bool*>(palloc0(sizeof(bool) * static_cast<Size>(shape->taker_count + 1)));
    if (!decoder::wants_table(shape->decoder.options, schema, table)) return wanted;
    for (int i = 0; i < shape->taker_count; ++i) wanted[i] = wants(source, shape->takers[i], *topic);
    return wanted;
}

void read_selection(const Selection& selection, decoder::Options* options) {
    List* given = NIL;
    auto add = [&given](const char* name, const char* value) {
        if (value == nullptr) return;
        given = lappend(given, makeDefElem(pstrdup(name), reinterpret_cast<Node*>(makeString(pstrdup(value))), -1));
    };
    add("format", is_row(selection) || selection.format == nullptr ? "debezium" : selection.format);
    // Options are read in their order, and this is one of wal2json's alone.
    if (same_text(selection.format, "wal2json")) add("format-version", "2");
    add("tables", selection.tables);
    add("publication_names", selection.publication);
    add("actions", selection.operations);
    add("messages", selection.messages);
    decoder::read_options(given, options);
}

// To what reads patterns an empty list is one without restrictions.
static void refuse_empty(const char* option, const char* given, const List* patterns, const char* none) {
    if (given != nullptr && patterns == NIL)
        ereport(ERROR,
                (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("route option \"%s\" is an empty list", option),
                 errdetail("It names nothing, and a route without it takes all."),
                 errhint("Leave it out for all, or write \"%s\" for none.", none)));
}

void check_selection(const Selection& selection) {
    decoder::Options options;
    read_selection(selection, &options);
    refuse_empty("tables", selection.tables, options.tables, "-*.*");
    refuse_empty("messages", selection.messages, options.messages, "-*");
    ListCell* cell;
    foreach (cell, options.tables) {
        const auto* pattern = static_cast<decoder::Pattern*>(lfirst(cell));
        if (!pattern->except && strcmp(pattern->schema, decoder::own_schema) == 0)
            ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                            errmsg("route option \"tables\" asks for \"%s.%s\"", pattern->schema, pattern->name),
                            errdetail("Tables of the schema eventbus are never delivered."),
                            errhint("Leave the pattern out; where no other is left, write \"-*.*\" for no tables.")));
    }
}

void make_row_events(Source* source) {
    decoder::Piece names = source_names();
    initStringInfo(&source->payload);
    for (int i = 0; i < list_length(source->takers); ++i) {
        const Selection& selection = static_cast<Taker*>(list_nth(source->takers, i))->selection;
        Shape* found = nullptr;
        ListCell* cell;
        foreach (cell, source->shapes) {
            auto* shape = static_cast<Shape*>(lfirst(cell));
            if (same(shape->selection, selection)) found = shape;
        }
        if (found == nullptr) {
            found = make_shape(source, selection, names);
            source->shapes = lappend(source->shapes, found);
        }
        found->takers[found->taker_count++] = i;
    }
}

}  // namespace eventbus::wal
