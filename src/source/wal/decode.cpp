// What it is: what becomes of a decoded change or message: an event for each taker that wants it.
// Who calls it: PostgreSQL's decoder, by the output plugin's callbacks.
// Never: looks at anything but what the historic snapshot shows; keeps what a change points to.
#include <algorithm>
#include <utility>

#include "source/wal/events.hpp"

extern "C" {
#include "replication/origin.h"
}

namespace eventbus::wal {

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

// One that was too much for the memory there is, again and again.
static void leave_out_payload(Event* event) {
    static char words[128];
    snprintf(words, sizeof words, "out of memory: its payload of %zu bytes is left out", event->payload.size());
    event->payload = event->headers = {};
    event->content_type = "application/json";
    event->is_bytes = true;
    event->error = words;
}

Found::Found(Source* source, XLogRecPtr lsn) : source_(source) {
    source->leave_if_told();
    Counting& counting = source->streaming != nullptr ? source->streaming->counting : source->counting;
    counting.in_record = counting.change == lsn ? counting.in_record + 1 : 0;
    counting.change = lsn;
    change_ = static_cast<int64>(lsn) + counting.in_record;
    if (source->streaming == nullptr) ++source->number;
}

void Found::give(int taker, Event* event) {
    const Failures* failures = source_->failures;
    if (failures->condemned && failures->change == change_ && event->payload.size() > large_event) {
        leave_out_payload(event);
        stamped_ = false;
    }
    source_->giving = change_;
    if (source_->streaming != nullptr) {
        write_streamed_gap(source_->streaming);
        write_event(source_->streaming->spool, {subtransaction(), taker, 0, given_, change_, stamped_}, *event);
    } else {
        event->id = {source_->commit, source_->number};
        if (event->published_at == 0) {
            event->published_at = to_unix_us(source_->committed_at);
            event->is_timeless = source_->is_timeless;
        }
        wal::give(source_, taker, *event);
    }
    source_->giving = 0;
    given_ = true;
}

void Found::done() {
    Streamed* streamed = source_->streaming;
    if (streamed == nullptr || given_) return;
    if (streamed->gap.count > 0 && streamed->gap.xid != subtransaction()) write_streamed_gap(streamed);
    streamed->gap.xid = subtransaction();
    streamed->gap.taker = nobody;
    ++streamed->gap.count;
}

namespace {

void remember(Source* source, TransactionId xid) {
    if (source->unseen_count == source->unseen_room) {
        source->unseen_room = std::max(64, source->unseen_room * 2);
        Size bytes = sizeof(TransactionId) * static_cast<Size>(source->unseen_room);
        source->unseen = static_cast<TransactionId*>(
            source->unseen == nullptr ? MemoryContextAlloc(source->memory, bytes) : repalloc(source->unseen, bytes));
    }
    source->unseen[source->unseen_count++] = xid;
}

// The record that has been read is the commit's, or that of a message without a transaction.
void begin(Source* source, uint64 commit, TimestampTz committed_at) {
    source->commit = commit;
    source->committed_at = committed_at;
    source->is_timeless = false;
    source->replicated = XLogRecGetOrigin(source->context->reader) != InvalidRepOriginId;
    source->number = 0;
    source->counting = {};
}

// When the transaction was committed here, whatever the origin of a replicated one says: the record at hand is that of
// the commit.
TimestampTz committed_here(const Source* source, const ReorderBufferTXN* txn) {
    XLogReaderState* reader = source->context->reader;
    if (!is_commit(reader)) return txn->xact_time.commit_time;
    return reinterpret_cast<const xl_xact_commit*>(XLogRecGetData(reader))->xact_time;
}

void on_begin(LogicalDecodingContext* context, ReorderBufferTXN* txn) {
    Source* source = source_of(context);
    begin_transaction(source, txn->xid, txn->final_lsn, committed_here(source, txn));
    source->stamp = decoder::make_stamp(txn, true, source->next_xid, source->now);
}

// The statistics are told once a step: it takes a look-up each time.
void on_commit(LogicalDecodingContext* context, ReorderBufferTXN*, XLogRecPtr) {
    Source* source = source_of(context);
    source->decoded_txns += std::exchange(context->reorder->totalTxns, 0);
    source->decoded_bytes += std::exchange(context->reorder->totalBytes, 0);
}

bool is_replicated(const ReorderBufferChange* change) {
    return change->origin_id != InvalidRepOriginId;
}

// What PostgreSQL hands the callbacks of a change.
struct Shown {
    LogicalDecodingContext* context;
    ReorderBufferTXN* txn;
    Relation relation;
    ReorderBufferChange* change;
};

void on_change(LogicalDecodingContext* context, ReorderBufferTXN* txn, Relation relation, ReorderBufferChange* change) {
    Shown shown = {context, txn, relation, change};
    auto show = [](void* argument) {
        auto* it = static_cast<Shown*>(argument);
        decoder::write_change(it->context, it->txn, it->relation, it->change);
    };
    show_change(source_of(context), change->lsn, relation, decoder::operation_of(change), is_replicated(change), show,
                &shown);
}

void on_truncate(LogicalDecodingContext* context, ReorderBufferTXN* txn, int count, Relation relations[],
                 ReorderBufferChange* change) {
    auto show = [](void* argument) {
        auto* it = static_cast<Shown*>(argument);
        decoder::write_truncate(it->context, it->txn, 1, &it->relation, it->change);
    };
    for (int i = 0; i < count; ++i) {
        Shown shown = {context, txn, relations[i], change};
        show_change(source_of(context), change->lsn, relations[i], decoder::Operation::truncate, is_replicated(change),
                    show, &shown);
    }
}

// Those that are no transaction's do not come this way; see message_transactions.cpp.
void on_message(LogicalDecodingContext* context, ReorderBufferTXN*, XLogRecPtr lsn, bool, const char* prefix, Size size,
                const char* content) {
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
    source->stamp = decoder::make_stamp(txn, false, source->next_xid, source->now);
    source->stamp.committed_at = commit_not_known;
}

// Also where an error has ended the block: PostgreSQL swallows that of a transaction that is rolled back meanwhile.
void on_stream_stop(LogicalDecodingContext* context, ReorderBufferTXN*) {
    forget_change(source_of(context));
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
    begin_transaction(source, txn->xid, txn->final_lsn, committed_here(source, txn));
    source->said_at = txn->xact_time.commit_time;
    std::sort(streamed->undone, streamed->undone + streamed->undone_count);
    release(streamed->spool);
    source->handing = streamed;
}

}  // namespace

void begin_transaction(Source* source, TransactionId xid, uint64 commit, TimestampTz committed_at) {
    begin(source, commit, committed_at);
    source->last_commit = committed_at;
    remember(source, xid);
}

void found_lone_message(Source* source, XLogRecPtr lsn, const char* prefix, std::string_view content) {
    begin(source, lsn, GetCurrentTimestamp());
    source->is_timeless = true;
    found_message(source, lsn, prefix, content);
}

void take_callbacks(Source* source) {
    LogicalDecodingContext* context = source->context;
    context->output_writer_private = source;
    source->plugins = context->output_plugin_private;
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
    context->streaming = !source->failures->unstreamed;
}

void forget_streamed(Source* source, Streamed* streamed) {
    free_spool(streamed->spool);
    if (streamed->undone != nullptr) pfree(streamed->undone);
    TransactionId xid = streamed->xid;
    hash_search(source->streamed, &xid, HASH_REMOVE, nullptr);
}

void give(Source* source, int taker, const Event& event) {
    constexpr Size most_at_once = 8 * 1024 * 1024;
    const auto* asked = static_cast<const Taker*>(list_nth(source->takers, taker));
    if (source->replicated && asked->selection.local_only) return;
    const bool past = event.id <= asked->from;
    if (past && event.id <= asked->past_from) return;
    const bool same_change = event.id == source->given;
    source->given = event.id;
    if (!source->emptying && source->overflow == nullptr && source->batch->length >= most_at_once && !same_change) {
        source->overflow = make_spool(source->memory);
        source->found = source->last_given;
    }
    if (!source->emptying && source->overflow != nullptr) {
        write_event(source->overflow, {InvalidTransactionId, taker, 0, same_change, source->giving, false}, event);
        return;
    }
    source->last_given = event.id;
    add(source->batch, taker, past, event, source->giving, source->committed_at);
}

}  // namespace eventbus::wal
