// What it is: version 2 of wal2json's format: one JSON object a change, a message, a BEGIN, a COMMIT.
// Who calls it: the plugin's callbacks.
// Never: differs from wal2json 2.6 but where docs/output-plugin.md says so.
#include "decoder/wal2json.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
}

namespace eventbus::decoder {

namespace {

Piece formatted_type(Form_pg_attribute attribute, const Options& options) {
    HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(attribute->atttypid));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for type %u", attribute->atttypid);
    auto* form = reinterpret_cast<Form_pg_type>(GETSTRUCT(tuple));
    bool to_base = form->typtype == TYPTYPE_DOMAIN && options.include_domain_data_type;
    char* name = to_base ? format_type_with_typemod(form->typbasetype, form->typtypmod)
                         : format_type_with_typemod(attribute->atttypid, attribute->atttypmod);
    ReleaseSysCache(tuple);
    return type_name(name);
}

// A column is written as head, value, tail; "}" is the tail of values in "identity".
void prepare(RelationPlan* plan, Relation published, const Options& options) {
    prepare_values(plan, published, options);
    for (int i = 0; i < plan->column_count; ++i) {
        Column* column = &plan->columns[i];
        Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(published), column->number - 1);
        StringInfoData head, tail;
        initStringInfo(&head);
        initStringInfo(&tail);
        appendStringInfoString(&head, "{\"name\":");
        put(&head, column->name);
        if (options.include_types) {
            appendStringInfoString(&head, ",\"type\":");
            put(&head, formatted_type(attribute, options));
        }
        if (options.include_type_oids) appendStringInfo(&head, ",\"typeoid\":%u", attribute->atttypid);
        column->key = copy_piece(psprintf("%.*s}", head.len, head.data));
        put(&head, ",\"value\":");
        column->head = piece_of(head);
        if (options.include_not_null)
            appendStringInfo(&tail, ",\"optional\":%s", attribute->attnotnull ? "false" : "true");
        if (options.include_column_positions) appendStringInfo(&tail, ",\"position\":%d", attribute->attnum);
        if (options.include_default) {
            appendStringInfoString(&tail, ",\"default\":");
            put(&tail, default_text(published, attribute));
        }
        put(&tail, '}');
        column->tail = piece_of(tail);
    }
    StringInfoData title;
    initStringInfo(&title);
    if (options.include_schemas) {
        appendStringInfoString(&title, ",\"schema\":");
        append_json_string(&title, plan->schema);
    }
    appendStringInfoString(&title, ",\"table\":");
    append_json_string(&title, plan->table);
    plan->title = piece_of(title);
}

void append_lsn(StringInfo out, const char* name, XLogRecPtr lsn) {
    appendStringInfo(out, ",\"%s\":\"%X/%X\"", name, static_cast<uint32>(lsn >> 32), static_cast<uint32>(lsn));
}

// The beginning of every object; what is of no transaction has nulls there.
void append_head(StringInfo out, const Options& options, const ReorderBufferTXN* txn, char action) {
    put(out, "{\"action\":\"");
    put(out, action);
    put(out, '"');
    if (options.include_xids) {
        if (txn != nullptr)
            appendStringInfo(out, ",\"xid\":%u", txn->xid);
        else
            put(out, ",\"xid\":null");
    }
    if (options.include_timestamp) {
        if (txn != nullptr)
            appendStringInfo(out, ",\"timestamp\":\"%s\"", timestamptz_to_str(txn->xact_time.commit_time));
        else
            put(out, ",\"timestamp\":null");
    }
    if (options.include_origin) {
        if (txn != nullptr)
            appendStringInfo(out, ",\"origin\":%u", txn->origin_id);
        else
            put(out, ",\"origin\":null");
    }
}

void write_boundary(Decoder* decoder, const ReorderBufferTXN* txn, char action, XLogRecPtr lsn) {
    if (!decoder->options.include_transaction) return;
    begin_record(decoder);
    StringInfo out = output_of(decoder);
    append_head(out, decoder->options, txn, action);
    if (decoder->options.include_lsn) {
        append_lsn(out, "lsn", lsn);
        append_lsn(out, "nextlsn", txn->end_lsn);
    }
    put(out, '}');
    end_record(decoder);
}

void begin(Decoder* decoder, ReorderBufferTXN* txn) {
    write_boundary(decoder, txn, 'B', txn->final_lsn);
}

void commit(Decoder* decoder, ReorderBufferTXN* txn, XLogRecPtr lsn) {
    write_boundary(decoder, txn, 'C', lsn);
}

void append_columns(StringInfo out, const RelationPlan& plan, const Row& row, bool identity, const Options& options) {
    bool first = true;
    for (int i = 0; i < plan.column_count; ++i) {
        Column* column = &plan.columns[i];
        if ((identity && !column->in_identity) || is_unavailable(*column, row)) continue;
        if (!first) put(out, ',');
        first = false;
        put(out, column->head);
        if (row.nulls[column->index])
            put(out, "null");
        else
            append_wal2json_value(out, column, row.values[column->index], options);
        if (identity)
            put(out, '}');
        else
            put(out, column->tail);
    }
}

void append_key(StringInfo out, const RelationPlan& plan, const Row& row) {
    bool first = true;
    for (int i = 0; i < plan.column_count; ++i) {
        const Column& column = plan.columns[i];
        if (!column.in_primary_key || is_unavailable(column, row)) continue;
        if (!first) put(out, ',');
        first = false;
        put(out, column.key);
    }
}

void warn(const RelationPlan& plan, const char* what, Operation operation) {
    elog(WARNING, "no %s for %s in table \"%s\".\"%s\"", what, operation == Operation::update ? "UPDATE" : "DELETE",
         plan.schema, plan.table);
}

bool has_trace(const RelationPlan& plan, const Change& change) {
    return change.operation == Operation::insert || change.operation == Operation::truncate ||
           change.before != nullptr || plan.has_identity_index || plan.identity_full;
}

// An UPDATE that leaves the identity as it was logs no old row; the new one has the identity.
const Row* identity_of(const RelationPlan& plan, const Change& change) {
    if (change.before != nullptr || change.operation != Operation::update) return change.before;
    return plan.has_primary_key || plan.has_identity_index ? change.after : nullptr;
}

void change(Decoder* decoder, ReorderBufferTXN* txn, RelationPlan* plan, const Change& change) {
    if (!has_trace(*plan, change)) {
        warn(*plan, "tuple identifier", change.operation);
        return;
    }
    ensure_begun(decoder, txn);
    begin_record(decoder);
    (void)append_wal2json_2(output_of(decoder), *plan, change, decoder->options, txn);
    bool has_row = change.operation == Operation::update || change.operation == Operation::remove;
    if (has_row && identity_of(*plan, change) == nullptr) warn(*plan, "old tuple data", change.operation);
    end_record(decoder);
}

void message(Decoder* decoder, ReorderBufferTXN* txn, XLogRecPtr lsn, bool transactional, const char* prefix, Size size,
             const char* content) {
    if (transactional) ensure_begun(decoder, txn);
    begin_record(decoder);
    StringInfo out = output_of(decoder);
    append_head(out, decoder->options, transactional ? txn : nullptr, 'M');
    if (decoder->options.include_lsn) append_lsn(out, "lsn", lsn);
    if (transactional)
        put(out, ",\"transactional\":true");
    else
        put(out, ",\"transactional\":false");
    put(out, ",\"prefix\":");
    append_json_string(out, prefix);
    put(out, ",\"content\":");
    append_content(out, content, size);
    put(out, '}');
    end_record(decoder);
}

}  // namespace

bool append_wal2json_2(StringInfo out, const RelationPlan& plan, const Change& change, const Options& options,
                       const ReorderBufferTXN* txn) {
    static constexpr char letters[operation_count] = {'I', 'U', 'D', 'T'};
    if (!has_trace(plan, change)) return false;
    append_head(out, options, txn, letters[static_cast<int>(change.operation)]);
    if (options.include_lsn) append_lsn(out, "lsn", change.lsn);
    put(out, plan.title);
    if (change.after != nullptr) {
        put(out, ",\"columns\":[");
        append_columns(out, plan, *change.after, false, options);
        put(out, ']');
    }
    if (const Row* identity = identity_of(plan, change)) {
        put(out, ",\"identity\":[");
        append_columns(out, plan, *identity, true, options);
        put(out, ']');
    }
    if (options.include_pk && change.operation != Operation::truncate) {
        const Row* key = change.before != nullptr ? change.before : change.after;
        put(out, ",\"pk\":[");
        if (plan.has_primary_key && key != nullptr) append_key(out, plan, *key);
        put(out, ']');
    }
    put(out, '}');
    return true;
}

const Format wal2json_format_2 = {prepare, nullptr, begin, commit, change, change, message};

}  // namespace eventbus::decoder
