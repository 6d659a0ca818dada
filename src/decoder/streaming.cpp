// What it is: blocks of unfinished transactions, and prepared ones, in the debezium format.
// Who calls it: PostgreSQL, where the client asked for streaming, or the slot is for two phases.
// Never: is reached in wal2json's format.
#include "decoder/changes.hpp"
#include "decoder/debezium.hpp"

namespace eventbus::decoder {

namespace {

Decoder* decoder_of(LogicalDecodingContext* context) {
    return static_cast<Decoder*>(context->output_plugin_private);
}

// What has been written of a transaction in earlier blocks goes with it.
Progress* progress_of(Decoder* decoder, ReorderBufferTXN* txn) {
    if (txn->output_plugin_private == nullptr)
        txn->output_plugin_private = MemoryContextAllocZero(decoder->memory, sizeof(Progress));
    return static_cast<Progress*>(txn->output_plugin_private);
}

void forget(ReorderBufferTXN* txn) {
    if (txn->output_plugin_private != nullptr) pfree(txn->output_plugin_private);
    txn->output_plugin_private = nullptr;
}

void stream_start(LogicalDecodingContext* context, ReorderBufferTXN* txn) {
    Decoder* decoder = decoder_of(context);
    decoder->streamed = progress_of(decoder, txn);
    *decoder->stamp = make_stamp(txn, false);
    decoder->streamed->begun = true;
    write_mark(decoder, "STREAM_START", context->write_location);
}

void stream_stop(LogicalDecodingContext* context, ReorderBufferTXN*) {
    Decoder* decoder = decoder_of(context);
    write_mark(decoder, "STREAM_STOP", context->write_location, decoder->streamed);
    decoder->streamed = nullptr;
}

// Of a subtransaction what has come since it began is void, of a transaction all. The server may tell of the end of one
// of which no block has come.
void stream_abort(LogicalDecodingContext* context, ReorderBufferTXN* txn, XLogRecPtr lsn) {
    Decoder* decoder = decoder_of(context);
    ReorderBufferTXN* top = txn->toptxn != nullptr ? txn->toptxn : txn;
    if (top->output_plugin_private == nullptr) return;
    *decoder->stamp = make_stamp(top, false);
    write_mark(decoder, "STREAM_ABORT", lsn, nullptr, top != txn ? txn->xid : InvalidTransactionId);
    if (top == txn) forget(txn);
}

void stream_commit(LogicalDecodingContext* context, ReorderBufferTXN* txn, XLogRecPtr lsn) {
    Decoder* decoder = decoder_of(context);
    report_progress(decoder, false, true);
    *decoder->stamp = make_stamp(txn, true);
    write_mark(decoder, "STREAM_COMMIT", lsn, progress_of(decoder, txn));
    forget(txn);
}

void stream_prepare(LogicalDecodingContext* context, ReorderBufferTXN* txn, XLogRecPtr lsn) {
    Decoder* decoder = decoder_of(context);
    report_progress(decoder, false, true);
    *decoder->stamp = make_stamp(txn, true);
    write_mark(decoder, "STREAM_PREPARE", lsn, progress_of(decoder, txn), InvalidTransactionId, txn->gid);
    forget(txn);
}

void begin_prepare(LogicalDecodingContext* context, ReorderBufferTXN* txn) {
    Decoder* decoder = decoder_of(context);
    decoder->progress = {};
    decoder->progress.begun = true;
    *decoder->stamp = make_stamp(txn, true);
    write_mark(decoder, "BEGIN_PREPARE", txn->final_lsn, nullptr, InvalidTransactionId, txn->gid);
}

void prepare(LogicalDecodingContext* context, ReorderBufferTXN* txn, XLogRecPtr lsn) {
    Decoder* decoder = decoder_of(context);
    report_progress(decoder, false, true);
    write_mark(decoder, "PREPARE", lsn, &decoder->progress, InvalidTransactionId, txn->gid);
}

void commit_prepared(LogicalDecodingContext* context, ReorderBufferTXN* txn, XLogRecPtr lsn) {
    Decoder* decoder = decoder_of(context);
    report_progress(decoder, false, true);
    *decoder->stamp = make_stamp(txn, true);
    write_mark(decoder, "COMMIT_PREPARED", lsn, nullptr, InvalidTransactionId, txn->gid);
}

void rollback_prepared(LogicalDecodingContext* context, ReorderBufferTXN* txn, XLogRecPtr, TimestampTz) {
    Decoder* decoder = decoder_of(context);
    report_progress(decoder, false, true);
    *decoder->stamp = make_stamp(txn, true);
    write_mark(decoder, "ROLLBACK_PREPARED", txn->final_lsn, nullptr, InvalidTransactionId, txn->gid);
}

}  // namespace

void add_stream_callbacks(OutputPluginCallbacks* callbacks) {
    callbacks->stream_start_cb = stream_start;
    callbacks->stream_stop_cb = stream_stop;
    callbacks->stream_abort_cb = stream_abort;
    callbacks->stream_commit_cb = stream_commit;
    callbacks->stream_prepare_cb = stream_prepare;
    callbacks->stream_change_cb = write_change;
    callbacks->stream_message_cb = write_message;
    callbacks->stream_truncate_cb = write_truncate;
    callbacks->begin_prepare_cb = begin_prepare;
    callbacks->prepare_cb = prepare;
    callbacks->commit_prepared_cb = commit_prepared;
    callbacks->rollback_prepared_cb = rollback_prepared;
}

}  // namespace eventbus::decoder
