// What it is: the debezium format: one JSON object a change or message; BEGIN and END where they are asked for.
// Who calls it: the plugin's callbacks.
// Never: leaves a column out because its value was not logged.
#include "decoder/debezium.hpp"

namespace eventbus::decoder {

namespace {

void append_number(StringInfo out, int64 number) {
    char digits[MAXINT8LEN + 1];
    put(out, digits, pg_lltoa(number, digits));
}

// Where changes of several transactions mix, or somebody asked for BEGIN and END, each says whose it is.
void append_transaction(Decoder* decoder, const ReorderBufferTXN* txn, TransactionId sub) {
    if (!decoder->options.transactions && decoder->streamed == nullptr) return;
    StringInfo out = output_of(decoder);
    put(out, ",\"transaction\":{\"id\":\"");
    append_number(out, decoder->stamp->transaction);
    put(out, "\",\"total_order\":");
    append_number(out, static_cast<int64>(current_progress(decoder)->changes));
    if (sub != InvalidTransactionId && sub != txn->xid) appendStringInfo(out, ",\"sub_id\":\"%u\"", sub);
    put(out, '}');
}

void start(Decoder* decoder, ReorderBufferTXN* txn) {
    *decoder->stamp = make_stamp(txn, true);
}

void begin(Decoder* decoder, ReorderBufferTXN* txn) {
    if (decoder->options.transactions) write_mark(decoder, "BEGIN", txn->final_lsn);
}

void commit(Decoder* decoder, ReorderBufferTXN*, XLogRecPtr lsn) {
    if (decoder->options.transactions) write_mark(decoder, "END", lsn, current_progress(decoder));
}

void finish(Decoder* decoder, const ReorderBufferTXN* txn, TransactionId sub) {
    append_transaction(decoder, txn, sub);
    put(output_of(decoder), '}');
    end_record(decoder);
}

void change(Decoder* decoder, ReorderBufferTXN* txn, RelationPlan* plan, const Change& change) {
    ensure_begun(decoder, txn);
    begin_record(decoder);
    append_change(output_of(decoder), *plan, change, *decoder->stamp);
    ++current_progress(decoder)->changes;  // not before it is there: PostgreSQL may swallow an error and continue
    finish(decoder, txn, change.sub);
}

void message(Decoder* decoder, ReorderBufferTXN* txn, XLogRecPtr lsn, bool transactional, const char* prefix, Size size,
             const char* content) {
    if (transactional) {
        ensure_begun(decoder, txn);
        ++current_progress(decoder)->changes;
    }
    Stamp alone = {0, to_unix_us(GetCurrentTimestamp()) / 1000, 0};
    alone.decoded_at = alone.committed_at;
    begin_record(decoder);
    append_message(output_of(decoder), decoder->options, lsn, prefix, size, content,
                   transactional ? *decoder->stamp : alone);
    if (transactional) append_transaction(decoder, txn, InvalidTransactionId);
    put(output_of(decoder), '}');
    end_record(decoder);
}

}  // namespace

const Format debezium_format = {prepare_envelope, start, begin, commit, change, change, message};

void write_mark(Decoder* decoder, const char* status, XLogRecPtr lsn, const Progress* progress, TransactionId sub,
                const char* gid) {
    begin_record(decoder);
    StringInfo out = output_of(decoder);
    const Stamp& stamp = *decoder->stamp;
    appendStringInfo(out, "{\"status\":\"%s\",\"id\":\"" INT64_FORMAT "\"", status, stamp.transaction);
    if (sub != InvalidTransactionId) appendStringInfo(out, ",\"sub_id\":\"%u\"", sub);
    if (stamp.committed_at >= 0)
        appendStringInfo(out, ",\"ts_ms\":" INT64_FORMAT, stamp.committed_at);
    else
        put(out, ",\"ts_ms\":null");
    put(out, ",\"lsn\":");
    append_number(out, static_cast<int64>(lsn));
    if (gid != nullptr) {
        put(out, ",\"gid\":");
        append_json_string(out, gid);
    }
    if (progress != nullptr) {
        put(out, ",\"event_count\":");
        append_number(out, static_cast<int64>(progress->changes));
    }
    put(out, '}');
    end_record(decoder);
}

}  // namespace eventbus::decoder
