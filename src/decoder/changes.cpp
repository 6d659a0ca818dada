#include "decoder/changes.hpp"

#include "decoder/publication.hpp"
#include "postgres/compat.hpp"

namespace eventbus::decoder {

namespace {

Decoder* decoder_of(LogicalDecodingContext* context) {
    return static_cast<Decoder*>(context->output_plugin_private);
}

TransactionId sub_of(const Decoder* decoder, const ReorderBufferTXN* txn, const ReorderBufferChange* change) {
    return decoder->streamed != nullptr ? change->txn->xid : txn->xid;
}

void write_wanted(Decoder* decoder, ReorderBufferTXN* txn, Relation relation, ReorderBufferChange* change) {
    RelationPlan* plan = plan_for(decoder->plans, relation);
    Operation operation = operation_of(change);
    if (!plan->wanted || !plan->operations[static_cast<int>(operation)]) return;
    HeapTuple old_row = compat::old_row(change);
    HeapTuple new_row = compat::new_row(change);
    if (new_row == nullptr && operation != Operation::remove) {
        elog(WARNING, "no tuple data for %s in table \"%s\".\"%s\"",
             operation == Operation::insert ? "INSERT" : "UPDATE", plan->schema, plan->table);
        return;
    }
    if (old_row != nullptr) take_apart(old_row, relation, &plan->before);
    if (new_row != nullptr) take_apart(new_row, relation, &plan->after);
    if (plan->filters != nullptr && !pass_row_filters(plan, &operation, old_row != nullptr)) return;
    Change out = {operation, old_row != nullptr && operation != Operation::insert ? &plan->before : nullptr,
                  new_row != nullptr && operation != Operation::remove ? &plan->after : nullptr, change->lsn,
                  sub_of(decoder, txn, change)};
    decoder->format->change(decoder, txn, plan, out);
}

}  // namespace

Operation operation_of(const ReorderBufferChange* change) {
    if (change->action == REORDER_BUFFER_CHANGE_INSERT) return Operation::insert;
    return change->action == REORDER_BUFFER_CHANGE_UPDATE ? Operation::update : Operation::remove;
}

void write_change(LogicalDecodingContext* context, ReorderBufferTXN* txn, Relation relation,
                  ReorderBufferChange* change) {
    Decoder* decoder = decoder_of(context);
    report_progress(decoder, false, false);
    MemoryContext before = MemoryContextSwitchTo(decoder->scratch);
    write_wanted(decoder, txn, relation, change);
    MemoryContextSwitchTo(before);
    MemoryContextReset(decoder->scratch);
}

void write_truncate(LogicalDecodingContext* context, ReorderBufferTXN* txn, int count, Relation relations[],
                    ReorderBufferChange* change) {
    Decoder* decoder = decoder_of(context);
    report_progress(decoder, false, false);
    MemoryContext before = MemoryContextSwitchTo(decoder->scratch);
    for (int i = 0; i < count; ++i) {
        RelationPlan* plan = plan_for(decoder->plans, relations[i]);
        if (!plan->wanted || !plan->operations[static_cast<int>(Operation::truncate)] || plan->under_ancestor) continue;
        Change out = {Operation::truncate, nullptr, nullptr, change->lsn, sub_of(decoder, txn, change)};
        decoder->format->truncate(decoder, txn, plan, out);
    }
    MemoryContextSwitchTo(before);
    MemoryContextReset(decoder->scratch);
}

void write_message(LogicalDecodingContext* context, ReorderBufferTXN* txn, XLogRecPtr lsn, bool transactional,
                   const char* prefix, Size size, const char* content) {
    Decoder* decoder = decoder_of(context);
    report_progress(decoder, false, false);
    if (!wants_message(decoder->options, prefix)) return;
    MemoryContext before = MemoryContextSwitchTo(decoder->scratch);
    decoder->format->message(decoder, txn, lsn, transactional, prefix, size, content);
    MemoryContextSwitchTo(before);
    MemoryContextReset(decoder->scratch);
}

void begin_record(Decoder* decoder) {
    OutputPluginPrepareWrite(decoder->context, true);
}

void end_record(Decoder* decoder) {
    constexpr int worth_keeping = 1024 * 1024;
    OutputPluginWrite(decoder->context, true);
    StringInfo out = output_of(decoder);
    if (out->maxlen <= worth_keeping) return;
    // A large row's memory is not held until the client goes.
    resetStringInfo(out);
    out->data = static_cast<char*>(repalloc(out->data, worth_keeping));
    out->maxlen = worth_keeping;
}

void report_progress(Decoder* decoder, bool skipped, bool end) {
    constexpr int often_enough = 100;  // changes; the clock is looked at each time
    static int changes;
    if (!end && (!compat::plugin_reports_progress || ++changes < often_enough)) return;
    OutputPluginUpdateProgress(decoder->context, skipped);
    changes = 0;
}

}  // namespace eventbus::decoder
