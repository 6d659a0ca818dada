// What it is: what becomes of a decoded change or message: an event for each taker that wants it.
// Who calls it: PostgreSQL's decoder, by the output plugin's callbacks.
// Never: looks at anything but what the historic snapshot shows; keeps what a change points to.
#include <algorithm>

#include "core/wal_message.hpp"
#include "wal/source_state.hpp"

extern "C" {
#include "mb/pg_wchar.h"
}

namespace eventbus::wal {

namespace {

Source* source_of(LogicalDecodingContext* context) {
    return static_cast<Source*>(context->output_writer_private);
}

// The subtransaction whose change is being streamed, where it may still be rolled back: PostgreSQL watches it.
TransactionId subtransaction() {
    return CheckXidAlive;
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

void write_gap(Streamed* streamed) {
    if (streamed->gap.count > 0) wal::write_gap(streamed->spool, streamed->gap);
    streamed->gap.count = 0;
}

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
            write_gap(source_->streaming);
            write_event(source_->streaming->spool, {subtransaction(), taker, 0, given_}, *event);
        } else {
            event->lsn = source_->commit;
            event->number = source_->number;
            if (event->published_at == 0) event->published_at = to_unix_us(source_->committed_at);
            wal::give(source_, static_cast<Taker*>(list_nth(source_->takers, taker)), *event);
        }
        given_ = true;
    }
    // All have been asked.
    void done() {
        Streamed* streamed = source_->streaming;
        if (streamed == nullptr || given_) return;
        if (streamed->gap.count > 0 && streamed->gap.xid != subtransaction()) write_gap(streamed);
        streamed->gap.xid = subtransaction();
        streamed->gap.taker = nobody;
        ++streamed->gap.count;
    }

 private:
    Source* source_;
    int64 id_;
    bool given_ = false;
};

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
    // Outside of a transaction nothing can be converted.
    bool readable = (GetDatabaseEncoding() == PG_UTF8 || IsTransactionState()) &&
                    pg_verify_mbstr(GetDatabaseEncoding(), content.data(), static_cast<int>(content.size()), true);
    event.is_bytes = !readable;
    if (!readable) {
        event.payload = content;
        event.content_type = "application/octet-stream";
        return event;
    }
    event.topic = utf8_of(event.topic);
    event.payload = utf8_of(content);
    event.content_type =
        compat::is_json(content.data(), static_cast<int>(content.size())) ? "application/json" : "text/plain";
    return event;
}

void found_message(Source* source, XLogRecPtr lsn, const char* prefix, std::string_view content) {
    MemoryContext before = MemoryContextSwitchTo(source->scratch);
    Found found(source, lsn);
    Event event;
    if (strcmp(prefix, wal_message_prefix) != 0 || !read_wal_message(content, event))
        event = foreign_message(prefix, content);
    for (int i = 0; i < source->taker_count; ++i) {
        auto* taker = static_cast<Taker*>(list_nth(source->takers, i));
        if (taker->wants(taker->context, event.topic)) found.give(i, &event);
    }
    found.done();
    MemoryContextSwitchTo(before);
    MemoryContextReset(source->scratch);
}

void on_begin(LogicalDecodingContext* context, ReorderBufferTXN* txn) {
    begin(source_of(context), txn->final_lsn, txn->xact_time.commit_time);
    remember(source_of(context), txn->xid);
}

void on_commit(LogicalDecodingContext*, ReorderBufferTXN*, XLogRecPtr) {}

void on_change(LogicalDecodingContext* context, ReorderBufferTXN*, Relation, ReorderBufferChange* change) {
    Found found(source_of(context), change->lsn);
    found.done();
}

void on_truncate(LogicalDecodingContext* context, ReorderBufferTXN*, int count, Relation*,
                 ReorderBufferChange* change) {
    for (int i = 0; i < count; ++i) {
        Found found(source_of(context), change->lsn);
        found.done();
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
    begin(source, txn->final_lsn, txn->xact_time.commit_time);
    remember(source, txn->xid);
    std::sort(streamed->undone, streamed->undone + streamed->undone_count);
    release(streamed->spool);
    source->handing = streamed;
}

}  // namespace

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
