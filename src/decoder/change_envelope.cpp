#include "decoder/change_envelope.hpp"

#include "postgres/envelope.hpp"

extern "C" {
#include "access/transam.h"
#include "catalog/pg_type_d.h"
#include "utils/datum.h"
}

namespace eventbus::decoder {

namespace {

// Debezium's word for a value that was not logged.
constexpr char unavailable[] = "\"__debezium_unavailable_value\"";

template <int size>
void append_number(StringInfo out, const char (&field)[size], int64 number) {
    char digits[MAXINT8LEN + 1];
    put(out, field);
    put(out, digits, pg_lltoa(number, digits));
}

// Where the value of a column stands in the buffer.
struct Span {
    int begin;
    int end;
};

// A json's own line ends are white space; a record is one line.
void join_lines(StringInfo out, int begin) {
    for (char* at = out->data + begin; at < out->data + out->len; ++at)
        if (*at == '\n' || *at == '\r') *at = ' ';
}

void append_value(StringInfo out, Column* column, const Row& row) {
    if (row.nulls[column->index]) {
        put(out, "null");
        return;
    }
    if (is_unavailable(*column, row)) {
        put(out, unavailable);
        return;
    }
    Datum value = row.values[column->index];
    if (column->json.type == CHAROID && append_single_byte(out, value)) return;
    int begin = out->len;
    append_json(out, &column->json, value);
    switch (column->json.kind) {
        case JsonType::Kind::json:
        case JsonType::Kind::converted:
        case JsonType::Kind::array:
        case JsonType::Kind::row:
            join_lines(out, begin);
            return;
        default:
            return;
    }
}

void append_name(StringInfo out, const Column& column, bool* first) {
    if (!*first) put(out, ',');
    *first = false;
    put(out, column.name);
    put(out, ':');
}

void append_before(StringInfo out, const RelationPlan& plan, const Row& row, Span* spans) {
    bool first = true;
    put(out, '{');
    for (int i = 0; i < plan.column_count; ++i) {
        Column* column = &plan.columns[i];
        if (!column->in_identity) continue;
        append_name(out, *column, &first);
        spans[i].begin = out->len;
        append_value(out, column, row);
        spans[i].end = out->len;
    }
    put(out, '}');
}

// Whether the old row has the column's value, and the new one the same.
bool is_same(const Column& column, const Change& change) {
    int i = column.index;
    if (change.before == nullptr || !column.in_identity) return false;
    if (is_unavailable(column, *change.before)) return false;
    if (is_unavailable(column, *change.after)) return true;
    if (change.before->nulls[i] || change.after->nulls[i]) return change.before->nulls[i] && change.after->nulls[i];
    return datum_image_eq(change.before->values[i], change.after->values[i], column.by_value, column.length);
}

// What stands in `spans` already is copied. Says which columns have changed, as far as that is known.
void append_after(StringInfo out, const RelationPlan& plan, const Change& change, const Span* spans, bool* changed) {
    bool first = true;
    put(out, '{');
    for (int i = 0; i < plan.column_count; ++i) {
        Column* column = &plan.columns[i];
        append_name(out, *column, &first);
        bool same = is_same(*column, change);
        changed[i] = !same;
        if (!same) {
            append_value(out, column, *change.after);
        } else if (spans == nullptr) {
            append_value(out, column, *change.before);
        } else {
            int length = spans[i].end - spans[i].begin;
            enlargeStringInfo(out, length);
            put(out, out->data + spans[i].begin, length);
        }
    }
    put(out, '}');
}

void append_changed(StringInfo out, const RelationPlan& plan, const bool* changed) {
    bool first = true;
    put(out, ",\"changed\":[");
    for (int i = 0; i < plan.column_count; ++i) {
        if (!changed[i]) continue;
        if (!first) put(out, ',');
        first = false;
        put(out, plan.columns[i].name);
    }
    put(out, ']');
}

void append_stamp(StringInfo out, const Stamp& stamp, XLogRecPtr lsn, char letter) {
    if (stamp.transaction != 0)
        append_number(out, "\"txId\":", stamp.transaction);
    else
        put(out, "\"txId\":null");
    if (stamp.committed_at >= 0)
        append_number(out, ",\"ts_ms\":", stamp.committed_at);
    else
        put(out, ",\"ts_ms\":null");
    append_number(out, ",\"lsn\":", static_cast<int64>(lsn));
    put(out, ",\"snapshot\":false},\"op\":\"");
    put(out, letter);
    append_number(out, "\",\"ts_ms\":", stamp.decoded_at);
}

void append_base64(StringInfo out, const char* bytes, Size size) {
    static constexpr char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (Size i = 0; i < size; i += 3) {
        Size count = std::min<Size>(size - i, 3);
        uint32 group = 0;
        for (Size n = 0; n < 3; ++n) group = group << 8 | (n < count ? static_cast<unsigned char>(bytes[i + n]) : 0);
        char four[4];
        for (Size n = 0; n < 4; ++n) four[n] = n <= count ? letters[group >> (18 - 6 * n) & 63] : '=';
        put(out, four, 4);
    }
}

}  // namespace

Stamp make_stamp(const ReorderBufferTXN* txn, bool committed) {
    return make_stamp(txn, committed, ReadNextFullTransactionId(), GetCurrentTimestamp());
}

Stamp make_stamp(const ReorderBufferTXN* txn, bool committed, FullTransactionId next, TimestampTz now) {
    // What is decoded lies less than two thousand million transactions from the next one.
    auto distance = static_cast<int32>(XidFromFullTransactionId(next) - txn->xid);
    Stamp stamp;
    stamp.transaction = static_cast<int64>(U64FromFullTransactionId(next)) - distance;
    const TimestampTz time = txn->xact_time.commit_time;  // an origin may have said any
    stamp.committed_at = committed && !TIMESTAMP_NOT_FINITE(time) ? to_unix_us(time) / 1000 : -1;
    stamp.decoded_at = to_unix_us(now) / 1000;
    return stamp;
}

void prepare_envelope(RelationPlan* plan, Relation published, const Options& options) {
    for (int i = 0; i < plan->column_count; ++i) {
        Column* column = &plan->columns[i];
        if (!column->unreadable) look_up_json_type(column->type, &plan->walk, &column->json);
    }
    (void)published;
    StringInfoData source;
    initStringInfo(&source);
    put(&source, options.source_names);
    append_source_table(&source, plan->schema, plan->table);
    plan->source = piece_of(source);
}

void append_before(StringInfo out, const RelationPlan& plan, const Row& row) {
    Span spans[MaxHeapAttributeNumber];
    append_before(out, plan, row, spans);
}

void append_after(StringInfo out, const RelationPlan& plan, const Change& change) {
    bool changed[MaxHeapAttributeNumber];
    append_after(out, plan, change, nullptr, changed);
}

void append_change(StringInfo out, const RelationPlan& plan, const Change& change, const Stamp& stamp) {
    static constexpr char letters[operation_count] = {'c', 'u', 'd', 't'};
    Span spans[MaxHeapAttributeNumber];
    bool changed[MaxHeapAttributeNumber];
    put(out, "{\"before\":");
    if (change.before != nullptr)
        append_before(out, plan, *change.before, spans);
    else
        put(out, "null");
    put(out, ",\"after\":");
    if (change.after != nullptr)
        append_after(out, plan, change, spans, changed);
    else
        put(out, "null");
    put(out, ",\"source\":{");
    put(out, plan.source);
    append_stamp(out, stamp, change.lsn, letters[static_cast<int>(change.operation)]);
    if (change.operation == Operation::update && change.before != nullptr && plan.identity_full)
        append_changed(out, plan, changed);
}

void append_message(StringInfo out, const Options& options, XLogRecPtr lsn, const char* prefix, Size size,
                    const char* content, const Stamp& stamp) {
    put(out, "{\"source\":{");
    put(out, options.source_names);
    append_source_table(out, "", "");
    append_stamp(out, stamp, lsn, 'm');
    put(out, ",\"message\":{\"prefix\":");
    append_json_string(out, prefix);
    put(out, ",\"content\":\"");
    append_base64(out, content, size);
    put(out, "\"}");
}

}  // namespace eventbus::decoder
