// What it is: what becomes of a decoded change or message: an event for each taker that wants it.
// Who calls it: PostgreSQL's decoder, by the output plugin's callbacks.
// Never: looks at anything but what the historic snapshot shows; keeps what a change points to.
#include <algorithm>

#include "core/wal_message.hpp"
#include "decoder/changes.hpp"
#include "postgres/envelope.hpp"
#include "postgres/rows.hpp"
#include "settings/settings.hpp"
#include "wal/source_state.hpp"

extern "C" {
#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "utils/lsyscache.h"
}

namespace eventbus::wal {

// What takers with the same selection have in common: the decoder's plans of tables, and one payload for all.
struct Shape {
    decoder::Decoder decoder;  // the first member: the decoder's callbacks know nothing else of us
    Selection selection;
    bool rows;
    int* takers;  // by number
    int taker_count;
};

namespace {

// The subtransaction whose change is being streamed, where it may still be rolled back: PostgreSQL watches it.
TransactionId subtransaction() {
    return CheckXidAlive;
}

void write_streamed_gap(Streamed* streamed) {
    if (streamed->gap.count > 0) wal::write_gap(streamed->spool, streamed->gap);
    streamed->gap.count = 0;
}

}  // namespace

// A change, and how it is given to those who take it.
class Found {
 public:
    Found(Source* source, XLogRecPtr change) : source_(source) {
        Counting& counting = source->streaming != nullptr ? source->streaming->counting : source->counting;
        counting.in_record = counting.change == change ? counting.in_record + 1 : 0;
        counting.change = change;
        id_ = static_cast<int64>(change) + counting.in_record;
        if (source->streaming == nullptr) ++source->number;
    }
    void give(int taker, Event* event) {
        event->id = id_;
        if (source_->streaming != nullptr) {
            write_streamed_gap(source_->streaming);
            write_event(source_->streaming->spool, {subtransaction(), taker, 0, given_, stamped_}, *event);
        } else {
            event->lsn = source_->commit;
            event->number = source_->number;
            if (event->published_at == 0) event->published_at = to_unix_us(source_->committed_at);
            wal::give(source_, static_cast<Taker*>(list_nth(source_->takers, taker)), *event);
        }
        given_ = true;
    }
    // The payload is an envelope.
    void stamped(bool is) { stamped_ = is; }
    // All have been asked.
    void done() {
        Streamed* streamed = source_->streaming;
        if (streamed == nullptr || given_) return;
        if (streamed->gap.count > 0 && streamed->gap.xid != subtransaction()) write_streamed_gap(streamed);
        streamed->gap.xid = subtransaction();
        streamed->gap.taker = nobody;
        ++streamed->gap.count;
    }

 private:
    Source* source_;
    int64 id_;
    bool given_ = false;
    bool stamped_ = false;
};

namespace {

Source* source_of(LogicalDecodingContext* context) {
    return static_cast<Source*>(context->output_writer_private);
}

bool wants(Source* source, int taker, std::string_view topic) {
    auto* asked = static_cast<Taker*>(list_nth(source->takers, taker));
    return asked->wants(asked->context, topic);
}

void remember(Source* source, TransactionId xid) {
    if (source->unseen_count == source->unseen_room) {
        source->unseen_room = std::max(64, source->unseen_room * 2);
        Size bytes = sizeof(TransactionId) * static_cast<Size>(source->unseen_room);
        source->unseen = static_cast<TransactionId*>(
            source->unseen == nullptr ? MemoryContextAlloc(source->memory, bytes) : repalloc(source->unseen, bytes));
    }
    source->unseen[source->unseen_count++] = xid;
}

void begin(Source* source, uint64 commit, TimestampTz committed_at) {
    source->commit = commit;
    source->committed_at = committed_at;
    source->number = 0;
    source->counting = {};
}

// What a topic may not hold becomes an underscore.
std::string_view topic_of_prefix(const char* prefix) {
    constexpr Size longest = 255;
    Size length = std::min(strlen(prefix), longest);
    char* topic = pnstrdup(prefix, length);
    for (char* c = topic; *c != '\0'; ++c) {
        bool empty_word = *c == '.' && (c == topic || c[-1] == '.' || c[1] == '\0');
        bool refused = static_cast<unsigned char>(*c) <= 0x20 || *c == 0x7f || strchr("*#+", *c) != nullptr;
        if (empty_word || refused) *c = '_';
    }
    return length > 0 ? std::string_view(topic, strlen(topic)) : "_";
}

std::string_view utf8_of(std::string_view text) {
    if (GetDatabaseEncoding() == PG_UTF8) return text;
    char* converted = pg_server_to_any(pnstrdup(text.data(), text.size()), static_cast<int>(text.size()), PG_UTF8);
    return {converted, strlen(converted)};
}

// Somebody's own message: the prefix is the topic, the content the payload.
Event foreign_message(const char* prefix, std::string_view content) {
    Event event;
    event.topic = topic_of_prefix(prefix);
    bool readable = pg_verify_mbstr(GetDatabaseEncoding(), content.data(), static_cast<int>(content.size()), true);
    event.is_bytes = !readable;
    if (!readable) {
        event.payload = content;
        event.content_type = "application/octet-stream";
        return event;
    }
    // What is converted wants the catalog, and so a transaction, which there is not always.
    bool own_transaction = GetDatabaseEncoding() != PG_UTF8 && !IsTransactionState();
    MemoryContext memory = CurrentMemoryContext;
    if (own_transaction) StartTransactionCommand();
    MemoryContextSwitchTo(memory);
    event.topic = utf8_of(event.topic);
    event.payload = utf8_of(content);
    event.content_type =
        compat::is_json(content.data(), static_cast<int>(content.size())) ? "application/json" : "text/plain";
    if (own_transaction) CommitTransactionCommand();
    MemoryContextSwitchTo(memory);
    return event;
}

// Cursors move because events are delivered; brokers have passwords.
constexpr const char* own_schema = "eventbus";

// What a table's events have in common.
struct TableWords {
    decoder::Column** key;
    Oid* key_types;  // base types
    FmgrInfo* key_output;
    int key_count;
    bool complete;
    std::string_view topics[decoder::operation_count];
    bool* wanted[decoder::operation_count];  // by the shape's takers
    bool any[decoder::operation_count];
};

// What the decoder's plan of a table has to know besides.
void prepare(decoder::RelationPlan* plan, Relation published, const decoder::Options& options) {
    decoder::prepare_envelope(plan, published, options);
    auto* words = static_cast<TableWords*>(palloc0(sizeof(TableWords)));
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
            Oid output;
            bool varlena;
            getTypeOutputInfo(column->type, &output, &varlena);
            fmgr_info(output, &words->key_output[words->key_count]);
            words->key_types[words->key_count] = getBaseType(column->type);
            words->key[words->key_count++] = column;
        }
    }
    plan->more = words;
}

void complete(Source* source, const Shape* shape, const decoder::RelationPlan* plan, TableWords* words) {
    static constexpr const char* operations[decoder::operation_count] = {"insert", "update", "delete", "truncate"};
    MemoryContext before = MemoryContextSwitchTo(plan->memory);
    for (int op = 0; op < decoder::operation_count; ++op) {
        StringInfoData topic;
        initStringInfo(&topic);
        append_topic_word(&topic, plan->schema);
        appendStringInfoChar(&topic, '.');
        append_topic_word(&topic, plan->table);
        appendStringInfo(&topic, ".%s", operations[op]);
        words->topics[op] = utf8_of({topic.data, static_cast<Size>(topic.len)});
        words->wanted[op] = static_cast<bool*>(palloc0(sizeof(bool) * static_cast<Size>(shape->taker_count)));
        if (strcmp(plan->schema, own_schema) == 0) continue;
        for (int i = 0; i < shape->taker_count; ++i) {
            words->wanted[op][i] = wants(source, shape->takers[i], words->topics[op]);
            words->any[op] = words->any[op] || words->wanted[op][i];
        }
    }
    MemoryContextSwitchTo(before);
    words->complete = true;
}

std::optional<std::string_view> key_of(const TableWords& words, const decoder::Change& change) {
    const decoder::Row* row = change.after != nullptr ? change.after : change.before;
    if (row == nullptr || words.key_count == 0) return std::nullopt;
    StringInfoData out;
    initStringInfo(&out);
    out.len = VARHDRSZ;
    bool any = false;
    for (int i = 0; i < words.key_count; ++i) {
        const decoder::Column* column = words.key[i];
        if (i > 0) put(&out, '/');
        if (row->nulls[column->index] || decoder::is_untouched(*column, *row)) continue;
        any = true;
        append_key_part(&out, words.key_types[i], &words.key_output[i], row->values[column->index]);
    }
    if (!any) return std::nullopt;
    text* key = make_event_key(&out);
    return utf8_of({VARDATA(key), VARSIZE(key) - VARHDRSZ});
}

std::string_view payload_of(Source* source, const Shape* shape, const decoder::RelationPlan& plan,
                            const decoder::Change& change) {
    StringInfo out = &source->payload;
    out->len = 0;
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
    return utf8_of({out->data, static_cast<Size>(out->len)});
}

void found_change(decoder::Decoder* decoder, ReorderBufferTXN*, decoder::RelationPlan* plan,
                  const decoder::Change& change) {
    auto* shape = reinterpret_cast<Shape*>(decoder);
    Source* source = source_of(decoder->context);
    auto* words = static_cast<TableWords*>(plan->more);
    if (!words->complete) complete(source, shape, plan, words);
    int op = static_cast<int>(change.operation);
    if (!words->any[op]) return;
    Event event;
    event.topic = words->topics[op];
    event.key = key_of(*words, change);
    event.payload = payload_of(source, shape, *plan, change);
    event.content_type = "application/json";
    source->found_now->stamped(!shape->rows);
    for (int i = 0; i < shape->taker_count; ++i)
        if (words->wanted[op][i]) source->found_now->give(shape->takers[i], &event);
}

const decoder::Format format = {prepare, nullptr, nullptr, nullptr, found_change, found_change, nullptr};

bool same_text(const char* a, const char* b) {
    return a == nullptr || b == nullptr ? a == b : strcmp(a, b) == 0;
}

bool same(const Selection& a, const Selection& b) {
    return a.rows == b.rows && same_text(a.tables, b.tables) && same_text(a.publication, b.publication) &&
           same_text(a.operations, b.operations) && same_text(a.messages, b.messages);
}

decoder::Piece source_names() {
    StringInfoData names;
    initStringInfo(&names);
    MemoryContext before = CurrentMemoryContext;
    StartTransactionCommand();
    MemoryContext within = MemoryContextSwitchTo(before);
    append_source_names(&names, settings::source_name(), get_database_name(MyDatabaseId));
    MemoryContextSwitchTo(within);
    CommitTransactionCommand();
    MemoryContextSwitchTo(before);
    return decoder::piece_of(names);
}

Shape* make_shape(Source* source, const Selection& selection, const decoder::Piece& names) {
    auto* shape = static_cast<Shape*>(palloc0(sizeof(Shape)));
    shape->selection = selection;
    shape->rows = selection.rows;
    shape->takers = static_cast<int*>(palloc0(sizeof(int) * static_cast<Size>(list_length(source->takers))));
    decoder::Decoder& decoder = shape->decoder;
    decoder.memory = AllocSetContextCreate(source->memory, "pg_eventbus decoder", ALLOCSET_DEFAULT_SIZES);
    decoder.scratch = AllocSetContextCreate(source->memory, "pg_eventbus decoded change", ALLOCSET_DEFAULT_SIZES);
    decoder.format = &format;
    read_selection(selection, &decoder.options);
    decoder.options.source_names = names;
    decoder.plans = decoder::make_plans(decoder.memory, &decoder.options, prepare);
    return shape;
}

template <class Show>
void show_to_shapes(Source* source, Found* found, Show show) {
    void* plugins = source->context->output_plugin_private;
    source->found_now = found;
    ListCell* cell;
    foreach (cell, source->shapes) {
        auto* shape = static_cast<Shape*>(lfirst(cell));
        shape->decoder.context = source->context;
        source->context->output_plugin_private = &shape->decoder;
        show();
    }
    source->context->output_plugin_private = plugins;
    source->found_now = nullptr;
    found->done();
}

void on_begin(LogicalDecodingContext* context, ReorderBufferTXN* txn) {
    Source* source = source_of(context);
    begin_transaction(source, txn->xid, txn->final_lsn, txn->xact_time.commit_time);
    source->stamp = decoder::make_stamp(txn, true);
}

void on_commit(LogicalDecodingContext*, ReorderBufferTXN*, XLogRecPtr) {}

void on_change(LogicalDecodingContext* context, ReorderBufferTXN* txn, Relation relation, ReorderBufferChange* change) {
    Source* source = source_of(context);
    Found found(source, change->lsn);
    show_to_shapes(source, &found, [&] { decoder::write_change(context, txn, relation, change); });
}

void on_truncate(LogicalDecodingContext* context, ReorderBufferTXN* txn, int count, Relation relations[],
                 ReorderBufferChange* change) {
    Source* source = source_of(context);
    for (int i = 0; i < count; ++i) {
        Found found(source, change->lsn);
        show_to_shapes(source, &found, [&] { decoder::write_truncate(context, txn, 1, &relations[i], change); });
    }
}

void on_message(LogicalDecodingContext* context, ReorderBufferTXN*, XLogRecPtr lsn, bool transactional,
                const char* prefix, Size size, const char* content) {
    if (!transactional) begin(source_of(context), lsn, GetCurrentTimestamp());
    found_message(source_of(context), lsn, prefix, {content, size});
}

void on_stream_start(LogicalDecodingContext* context, ReorderBufferTXN* txn) {
    Source* source = source_of(context);
    bool known;
    auto* streamed = static_cast<Streamed*>(hash_search(source->streamed, &txn->xid, HASH_ENTER, &known));
    if (!known) {
        TransactionId xid = streamed->xid;
        *streamed = {};
        streamed->xid = xid;
        streamed->spool = make_spool(source->memory);
    }
    source->streaming = streamed;
    source->stamp = decoder::make_stamp(txn, false);
    source->stamp.committed_at = commit_not_known;
}

void on_stream_stop(LogicalDecodingContext* context, ReorderBufferTXN*) {
    source_of(context)->streaming = nullptr;
}

void on_stream_abort(LogicalDecodingContext* context, ReorderBufferTXN* txn, XLogRecPtr) {
    Source* source = source_of(context);
    TransactionId top = txn->toptxn != nullptr ? txn->toptxn->xid : txn->xid;
    auto* streamed = static_cast<Streamed*>(hash_search(source->streamed, &top, HASH_FIND, nullptr));
    if (streamed == nullptr) return;
    if (txn->toptxn == nullptr) {
        forget_streamed(source, streamed);
        return;
    }
    if (streamed->undone_count == streamed->undone_room) {
        streamed->undone_room = std::max(16, streamed->undone_room * 2);
        Size bytes = sizeof(TransactionId) * static_cast<Size>(streamed->undone_room);
        streamed->undone =
            static_cast<TransactionId*>(streamed->undone == nullptr ? MemoryContextAlloc(source->memory, bytes)
                                                                    : repalloc(streamed->undone, bytes));
    }
    streamed->undone[streamed->undone_count++] = txn->xid;
}

void on_stream_commit(LogicalDecodingContext* context, ReorderBufferTXN* txn, XLogRecPtr) {
    Source* source = source_of(context);
    auto* streamed = static_cast<Streamed*>(hash_search(source->streamed, &txn->xid, HASH_FIND, nullptr));
    if (streamed == nullptr) return;
    begin_transaction(source, txn->xid, txn->final_lsn, txn->xact_time.commit_time);
    std::sort(streamed->undone, streamed->undone + streamed->undone_count);
    release(streamed->spool);
    source->handing = streamed;
}

}  // namespace

void read_selection(const Selection& selection, decoder::Options* options) {
    List* given = NIL;
    auto add = [&given](const char* name, const char* value) {
        if (value == nullptr) return;
        given = lappend(given, makeDefElem(pstrdup(name), reinterpret_cast<Node*>(makeString(pstrdup(value))), -1));
    };
    add("format", "debezium");
    add("tables", selection.tables);
    add("publication_names", selection.publication);
    add("actions", selection.operations);
    add("messages", selection.messages);
    decoder::read_options(given, options);
}

void begin_transaction(Source* source, TransactionId xid, uint64 commit, TimestampTz committed_at) {
    begin(source, commit, committed_at);
    remember(source, xid);
}

void found_message(Source* source, XLogRecPtr lsn, const char* prefix, std::string_view content) {
    MemoryContext before = MemoryContextSwitchTo(source->scratch);
    Found found(source, lsn);
    Event event;
    if (strcmp(prefix, wal_message_prefix) != 0 || !read_wal_message(content, event))
        event = foreign_message(prefix, content);
    const char* topic = pnstrdup(event.topic.data(), event.topic.size());
    ListCell* cell;
    foreach (cell, source->shapes) {
        auto* shape = static_cast<Shape*>(lfirst(cell));
        if (!decoder::wants_message(shape->decoder.options, topic)) continue;
        for (int i = 0; i < shape->taker_count; ++i)
            if (wants(source, shape->takers[i], event.topic)) found.give(shape->takers[i], &event);
    }
    found.done();
    MemoryContextSwitchTo(before);
    MemoryContextReset(source->scratch);
}

void check_selection(const Selection& selection) {
    decoder::Options options;
    read_selection(selection, &options);
}

void make_shapes(Source* source) {
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

void take_callbacks(Source* source) {
    LogicalDecodingContext* context = source->context;
    context->output_writer_private = source;
    OutputPluginCallbacks& callbacks = context->callbacks;
    callbacks.begin_cb = on_begin;
    callbacks.commit_cb = on_commit;
    callbacks.change_cb = on_change;
    callbacks.truncate_cb = on_truncate;
    callbacks.message_cb = on_message;
    callbacks.filter_by_origin_cb = nullptr;
    callbacks.stream_start_cb = on_stream_start;
    callbacks.stream_stop_cb = on_stream_stop;
    callbacks.stream_abort_cb = on_stream_abort;
    callbacks.stream_commit_cb = on_stream_commit;
    callbacks.stream_change_cb = on_change;
    callbacks.stream_truncate_cb = on_truncate;
    callbacks.stream_message_cb = on_message;
    context->streaming = true;
}

void forget_streamed(Source* source, Streamed* streamed) {
    free_spool(streamed->spool);
    if (streamed->undone != nullptr) pfree(streamed->undone);
    TransactionId xid = streamed->xid;
    hash_search(source->streamed, &xid, HASH_REMOVE, nullptr);
}

void give(Source* source, Taker* taker, const Event& event) {
    if (id_of(event) <= taker->from) return;
    if (taker->to_file) {
        if (taker->file == nullptr) {
            taker->file = make_spool(taker->memory);
            taker->read = {event.lsn, event.number - 1};
        }
        write_event(taker->file, {}, event);
        return;
    }
    if (taker->building == nullptr) taker->building = make_chunk(taker->memory);
    add_event(taker->building, copy_event(taker->building, event), source->committed_at);
}

}  // namespace eventbus::wal
