// What it is: version 1 of wal2json's format: one JSON object a transaction, with arrays of names, types and values.
// Who calls it: the plugin's callbacks.
// Never: differs from wal2json 2.6 but where docs/output-plugin.md says so; holds more than a record can carry.
#include "decoder/wal2json.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
}

namespace eventbus::decoder {

namespace {

// A record ends here, and another begins with the next change: a text cannot be longer than 1 GB.
constexpr int longest_record = 512 * 1024 * 1024;

struct TypeName {
    Piece text;
    Oid oid;
};

TypeName type_of(Form_pg_attribute attribute, const Options& options) {
    HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(attribute->atttypid));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for type %u", attribute->atttypid);
    auto* form = reinterpret_cast<Form_pg_type>(GETSTRUCT(tuple));
    Oid oid = attribute->atttypid;
    int32 modifier = attribute->atttypmod;
    char* own_name = pstrdup(NameStr(form->typname));
    if (form->typtype == TYPTYPE_DOMAIN && options.include_domain_data_type && options.include_types) {
        oid = form->typbasetype;
        modifier = form->typtypmod;
        if (!options.include_typmod) {
            HeapTuple base = SearchSysCache1(TYPEOID, ObjectIdGetDatum(oid));
            if (!HeapTupleIsValid(base)) elog(ERROR, "cache lookup failed for type %u", oid);
            own_name = pstrdup(NameStr(reinterpret_cast<Form_pg_type>(GETSTRUCT(base))->typname));
            ReleaseSysCache(base);
        }
    }
    ReleaseSysCache(tuple);
    return {type_name(options.include_typmod ? format_type_with_typemod(oid, modifier) : own_name), oid};
}

void prepare(RelationPlan* plan, Relation published, const Options& options) {
    prepare_values(plan, published, options);
    for (int i = 0; i < plan->column_count; ++i) {
        Column* column = &plan->columns[i];
        Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(published), column->number - 1);
        TypeName type = type_of(attribute, options);
        column->type_text = type.text;
        column->type_oid = copy_piece(psprintf("%u", type.oid));
        column->position = copy_piece(psprintf("%d", attribute->attnum));
        column->optional = copy_piece(attribute->attnotnull ? "false" : "true");
        if (options.include_default) column->default_value = default_text(published, attribute);
    }
    const char* tab = options.tab;
    StringInfoData title;
    initStringInfo(&title);
    auto add = [&](const char* name, const char* value) {
        appendStringInfo(&title, "%s%s%s\"%s\":%s", tab, tab, tab, name, options.space);
        append_json_string(&title, value);
        appendStringInfo(&title, ",%s", options.line);
    };
    if (options.include_schemas) add("schema", plan->schema);
    add("table", plan->table);
    plan->title = piece_of(title);
}

void append_tabs(StringInfo out, const Options& options, int count) {
    for (int i = 0; i < count; ++i) appendStringInfoString(out, options.tab);
}

// "name": [ … with as many tabs before it.
void append_opening(StringInfo out, const Options& options, int tabs, const char* name) {
    append_tabs(out, options, tabs);
    appendStringInfo(out, "\"%s\":%s[", name, options.space);
}

// Which columns of a row are shown: in the identity no nulls are.
struct Shown {
    const RelationPlan* plan;
    const Row* row;
    bool identity;  // oldkeys, rather than the new row
    bool by_index;  // only the identity index's columns

    bool has(const Column& column) const {
        if (by_index && !column.in_identity) return false;
        if (identity && row->nulls[column.index]) return false;
        return !is_unavailable(column, *row);
    }
};

// One of the arrays that run beside each other; `element` writes a column's.
template <typename Element>
void append_array(StringInfo out, const Shown& shown, const Options& options, const char* name, Element element) {
    append_opening(out, options, shown.identity ? 4 : 3, name);
    bool first = true;
    for (int i = 0; i < shown.plan->column_count; ++i) {
        Column* column = &shown.plan->columns[i];
        if (!shown.has(*column)) continue;
        if (!first) appendStringInfo(out, ",%s", options.space);
        first = false;
        element(column);
    }
    put(out, ']');
}

void append_row(StringInfo out, const Shown& shown, const Options& options, bool more_follows) {
    auto array = [&](const char* name, Piece Column::*member) {
        append_array(out, shown, options, name, [&](Column* column) { put(out, column->*member); });
        appendStringInfo(out, ",%s", options.line);
    };
    if (shown.identity) {
        append_tabs(out, options, 3);
        appendStringInfo(out, "\"oldkeys\":%s{%s", options.space, options.line);
    }
    array(shown.identity ? "keynames" : "columnnames", &Column::name);
    if (options.include_types) array(shown.identity ? "keytypes" : "columntypes", &Column::type_text);
    if (options.include_type_oids) array(shown.identity ? "keytypeoids" : "columntypeoids", &Column::type_oid);
    if (!shown.identity) {
        if (options.include_column_positions) array("columnpositions", &Column::position);
        if (options.include_not_null) {
            if (options.include_types) {
                array("columnoptionals", &Column::optional);
            } else {  // wal2json fills this array only together with the types
                append_opening(out, options, 3, "columnoptionals");
                appendStringInfo(out, "],%s", options.line);
            }
        }
        if (options.include_default) array("columndefaults", &Column::default_value);
    }
    append_array(out, shown, options, shown.identity ? "keyvalues" : "columnvalues", [&](Column* column) {
        if (shown.row->nulls[column->index])
            put(out, "null");
        else
            append_wal2json_value(out, column, shown.row->values[column->index], options);
    });
    if (more_follows) put(out, ',');
    appendStringInfoString(out, options.line);
    if (shown.identity) {
        append_tabs(out, options, 3);
        appendStringInfo(out, "}%s", options.line);
    }
}

void append_key(StringInfo out, const RelationPlan& plan, const Options& options, bool more_follows) {
    auto array = [&](const char* name, Piece Column::*member, bool filled) {
        append_opening(out, options, 4, name);
        bool first = true;
        for (int i = 0; filled && i < plan.column_count; ++i) {
            if (!plan.columns[i].in_primary_key) continue;
            if (!first) appendStringInfo(out, ",%s", options.space);
            first = false;
            put(out, plan.columns[i].*member);
        }
        put(out, ']');
    };
    append_tabs(out, options, 3);
    appendStringInfo(out, "\"pk\":%s{%s", options.space, options.line);
    array("pknames", &Column::name, true);
    appendStringInfo(out, ",%s", options.line);
    array("pktypes", &Column::type_text, options.include_types);
    appendStringInfoString(out, options.line);
    append_tabs(out, options, 3);
    appendStringInfo(out, "}%s%s", more_follows ? "," : "", options.line);
}

void begin(Decoder* decoder, ReorderBufferTXN* txn) {
    const Options& options = decoder->options;
    begin_record(decoder);
    StringInfo out = output_of(decoder);
    const char* tab = options.tab;
    const char* space = options.space;
    const char* line = options.line;
    appendStringInfo(out, "{%s", line);
    if (options.include_xids) appendStringInfo(out, "%s\"xid\":%s%u,%s", tab, space, txn->xid, line);
    if (options.include_lsn)
        appendStringInfo(out, "%s\"nextlsn\":%s\"%X/%X\",%s", tab, space, static_cast<uint32>(txn->end_lsn >> 32),
                         static_cast<uint32>(txn->end_lsn), line);
    if (options.include_timestamp)
        appendStringInfo(out, "%s\"timestamp\":%s\"%s\",%s", tab, space, timestamptz_to_str(txn->xact_time.commit_time),
                         line);
    if (options.include_origin) appendStringInfo(out, "%s\"origin\":%s%u,%s", tab, space, txn->origin_id, line);
    append_opening(out, options, 1, "change");
    if (options.write_in_chunks) end_record(decoder);
}

void commit(Decoder* decoder, ReorderBufferTXN*, XLogRecPtr) {
    const Options& options = decoder->options;
    if (options.write_in_chunks) begin_record(decoder);
    StringInfo out = output_of(decoder);
    if (!options.write_in_chunks) appendStringInfoString(out, options.line);
    appendStringInfo(out, "%s]%s}", options.tab, options.line);
    end_record(decoder);
}

// Opens an element of "change"; in chunks each is a record of its own.
void begin_element(Decoder* decoder, ReorderBufferTXN* txn) {
    const Options& options = decoder->options;
    ensure_begun(decoder, txn);
    StringInfo out = output_of(decoder);
    ++decoder->progress.changes;
    if (options.write_in_chunks) {
        begin_record(decoder);
    } else if (out->len > longest_record) {
        // The line's end that belongs here is the record's, where records are lines.
        end_record(decoder);
        begin_record(decoder);
    } else {
        appendStringInfoString(out, options.line);
    }
    append_tabs(out, options, 2);
    if (decoder->progress.changes > 1) put(out, ',');
    appendStringInfo(out, "{%s", options.line);
}

void end_element(Decoder* decoder) {
    append_tabs(output_of(decoder), decoder->options, 2);
    put(output_of(decoder), '}');
    if (decoder->options.write_in_chunks) end_record(decoder);
}

void append_kind(StringInfo out, const Options& options, const char* kind) {
    append_tabs(out, options, 3);
    appendStringInfo(out, "\"kind\":%s\"%s\",%s", options.space, kind, options.line);
}

void change(Decoder* decoder, ReorderBufferTXN* txn, RelationPlan* plan, const Change& change) {
    static constexpr const char* kinds[operation_count] = {"insert", "update", "delete", "truncate"};
    const Options& options = decoder->options;
    bool insert = change.operation == Operation::insert;
    if (!insert && !plan->has_identity_index && !plan->identity_full) {
        elog(WARNING, "table \"%s\" without primary key or replica identity is nothing", plan->table);
        return;
    }
    if (change.operation == Operation::remove && change.before == nullptr) {
        elog(WARNING, "no tuple data for DELETE in table \"%s\"", plan->table);
        return;
    }
    begin_element(decoder, txn);
    StringInfo out = output_of(decoder);
    append_kind(out, options, kinds[static_cast<int>(change.operation)]);
    put(out, plan->title);
    bool key = options.include_pk && plan->has_primary_key;
    if (change.after != nullptr) append_row(out, {plan, change.after, false, false}, options, key || !insert);
    if (key) append_key(out, *plan, options, !insert);
    if (change.operation == Operation::remove)
        append_row(out, {plan, change.before, true, true}, options, false);
    else if (!insert && change.before == nullptr)
        append_row(out, {plan, change.after, true, true}, options, false);
    else if (!insert)
        append_row(out, {plan, change.before, true, false}, options, false);
    end_element(decoder);
}

// Version 1 has no word for it.
void truncate(Decoder*, ReorderBufferTXN*, RelationPlan*, const Change&) {}

void append_message(StringInfo out, const Options& options, bool transactional, const char* prefix, Size size,
                    const char* content) {
    append_kind(out, options, "message");
    append_tabs(out, options, 3);
    appendStringInfo(out, "\"transactional\":%s%s,%s", options.space, transactional ? "true" : "false", options.line);
    append_tabs(out, options, 3);
    appendStringInfo(out, "\"prefix\":%s", options.space);
    append_json_string(out, prefix);
    appendStringInfo(out, ",%s", options.line);
    append_tabs(out, options, 3);
    appendStringInfo(out, "\"content\":%s", options.space);
    append_content(out, content, size);
    appendStringInfoString(out, options.line);
}

void message(Decoder* decoder, ReorderBufferTXN* txn, XLogRecPtr, bool transactional, const char* prefix, Size size,
             const char* content) {
    const Options& options = decoder->options;
    if (transactional) {
        begin_element(decoder, txn);
        append_message(output_of(decoder), options, true, prefix, size, content);
        end_element(decoder);
        return;
    }
    begin_record(decoder);
    StringInfo out = output_of(decoder);
    appendStringInfo(out, "{%s", options.line);
    append_opening(out, options, 1, "change");
    appendStringInfoString(out, options.line);
    append_tabs(out, options, 2);
    appendStringInfo(out, "{%s", options.line);
    append_message(out, options, false, prefix, size, content);
    append_tabs(out, options, 2);
    put(out, '}');
    appendStringInfo(out, "%s%s]%s}", options.line, options.tab, options.line);
    end_record(decoder);
}

}  // namespace

const Format wal2json_format_1 = {prepare, nullptr, begin, commit, change, truncate, message};

}  // namespace eventbus::decoder
