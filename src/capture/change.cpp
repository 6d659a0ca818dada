// What it is: eventbus.publish_change(), the trigger function that makes an event of a changed row.
// Who calls it: PostgreSQL, for triggers made by eventbus.capture or by hand.
// Never: looks at the rights of whoever writes the table; making the trigger took them.
#include "capture/capture_state.hpp"
#include "intake/characters.hpp"
#include "intake/publish.hpp"
#include "postgres/guest.hpp"
#include "settings/settings.hpp"
#include "source/log/payload_tokens.hpp"

extern "C" {
#include "catalog/pg_type_d.h"
#include "utils/datum.h"
}

namespace eventbus::capture {

namespace {

using log::PayloadToken;

// A row taken apart.
struct Row {
    Datum* values;
    bool* nulls;
};

Row take_apart(HeapTuple tuple, TupleDesc description) {
    auto natts = static_cast<Size>(description->natts);
    Row row;
    row.values = static_cast<Datum*>(palloc(natts * (sizeof(Datum) + sizeof(bool))));
    row.nulls = reinterpret_cast<bool*>(row.values + natts);
    heap_deform_tuple(tuple, description, row.values, row.nulls);
    return row;
}

// What is being published: both rows of an UPDATE, one otherwise, none of a TRUNCATE.
struct Change {
    Operation operation;
    const Row* before;
    const Row* after;
    bool* changed;  // per column of the state; nullptr unless it is an UPDATE
};

bool same_value(const CapturedColumn& column, const Row& before, const Row& after) {
    int i = column.index;
    if (before.nulls[i] || after.nulls[i]) return before.nulls[i] && after.nulls[i];
    return datum_image_eq(before.values[i], after.values[i], column.by_value, column.length);
}

// Marks the columns that an UPDATE has changed; false where none of those shown is among them.
bool mark_changes(const CaptureState& state, Change* change) {
    change->changed = static_cast<bool*>(palloc0(sizeof(bool) * static_cast<Size>(state.column_count + 1)));
    bool any = false;
    for (int i = 0; i < state.column_count; ++i) {
        const CapturedColumn& column = state.columns[i];
        if (!column.shown && !column.in_key) continue;
        change->changed[i] = !same_value(column, *change->before, *change->after);
        any = any || change->changed[i];
    }
    return any;
}

// Where the values of a row that has been written stand in the buffer.
struct Span {
    int begin;
    int end;
};

void append_row(StringInfo out, const CaptureState& state, const Row& row, bool only_key, Span* spans,
                const bool* changed) {
    bool first = true;
    put(out, '{');
    for (int i = 0; i < state.column_count; ++i) {
        CapturedColumn& column = state.columns[i];
        if (only_key ? !column.in_key : !column.shown) continue;
        if (!first) put(out, ',');
        first = false;
        put(out, column.name, column.name_length);
        put(out, ':');
        if (changed != nullptr && !changed[i]) {  // written once already
            enlargeStringInfo(out, spans[i].end - spans[i].begin);
            put(out, out->data + spans[i].begin, spans[i].end - spans[i].begin);
            continue;
        }
        int begin = out->len;
        if (row.nulls[column.index]) {
            put(out, "null", 4);
        } else {
            append_json(out, &column.json, row.values[column.index]);
        }
        if (spans != nullptr) spans[i] = {begin, out->len};
    }
    put(out, '}');
}

void append_changed(StringInfo out, const CaptureState& state, const bool* changed) {
    put(out, ",\"changed\":[");
    bool first = true;
    for (int i = 0; i < state.column_count; ++i) {
        if (!changed[i] || !state.columns[i].shown) continue;
        if (!first) put(out, ',');
        first = false;
        put(out, state.columns[i].name, state.columns[i].name_length);
    }
    put(out, ']');
}

// The envelope of Debezium's PostgreSQL connector, and the names of the columns that an UPDATE changed.
void append_envelope(StringInfo out, const CaptureState& state, const Change& change) {
    Span* spans = nullptr;
    if (change.changed != nullptr)
        spans = static_cast<Span*>(palloc(sizeof(Span) * static_cast<Size>(state.column_count + 1)));
    if (change.before != nullptr) {
        put(out, "{\"before\":");
        append_row(out, state, *change.before, false, spans, nullptr);
        put(out, ",\"after\":");
    } else {
        put(out, PayloadToken::no_before);
    }
    if (change.after != nullptr) {
        append_row(out, state, *change.after, false, spans, change.changed);
    } else {
        put(out, "null");
    }
    const CaptureSource& source = state.sources[static_cast<int>(change.operation)];
    put(out, source.text, source.length);
    if (change.changed != nullptr) append_changed(out, state, change.changed);
    put(out, '}');
}

// The payload as a text datum.
Datum make_payload(const CaptureState& state, const Change& change) {
    static Size usual = 1024;
    StringInfoData out;
    out.maxlen = static_cast<int>(usual);
    out.data = static_cast<char*>(palloc(usual));
    out.len = VARHDRSZ;
    out.cursor = 0;
    const Row* row = change.after != nullptr ? change.after : change.before;
    if (state.payload == CapturePayload::change) {
        append_envelope(&out, state, change);
    } else if (row == nullptr) {
        put(&out, "null");
    } else {
        append_row(&out, state, *row, state.payload == CapturePayload::key, nullptr, nullptr);
    }
    SET_VARSIZE(out.data, out.len);
    constexpr Size most = 64 * 1024;  // what is asked for at once; rows that are larger grow their buffer
    if (static_cast<Size>(out.len) > usual) usual = std::min<Size>(static_cast<Size>(out.maxlen), most);
    return PointerGetDatum(out.data);
}

// The values of the key's columns, joined by slashes.
text* make_key(const CaptureState& state, const Change& change) {
    const Row* row = change.after != nullptr ? change.after : change.before;
    if (row == nullptr || state.key_count == 0) return nullptr;
    StringInfoData out;
    initStringInfo(&out);
    out.len = VARHDRSZ;
    bool any = false;
    for (int i = 0; i < state.key_count; ++i) {
        CapturedColumn& column = state.columns[state.key[i]];
        if (i > 0) put(&out, '/');
        if (row->nulls[column.index]) continue;
        any = true;
        append_key_part(&out, column.json.type, &column.output, row->values[column.index]);
    }
    if (!any) return nullptr;
    return make_event_key(&out);
}

// What is delivered is limited; phrases are a few hundred bytes in it.
void check_size(const log::NewEvent& event) {
    constexpr Size phrases = 16 * 1024;  // the longest setting that they show is shorter
    Size stored = VARSIZE_ANY_EXHDR(DatumGetPointer(event.payload));
    if (stored + phrases <= static_cast<Size>(settings::max_payload)) return;
    StringInfoData whole;
    initStringInfo(&whole);
    log::append_whole(
        &whole, text_view(reinterpret_cast<const text*>(DatumGetPointer(event.payload))),
        {text_view(event.topic), U64FromFullTransactionId(GetTopFullTransactionId()), GetCurrentTimestamp()});
    intake::check_payload_size(static_cast<Size>(whole.len));
    pfree(whole.data);
}

[[noreturn]] void refuse_value(Relation rel, const char* column, std::string_view text, Size at) {
    refuse_character(
        psprintf(
            "a change of table \"%s\" cannot be published: column \"%s\" holds a character that cannot be delivered",
            RelationGetRelationName(rel), column),
        text, at,
        psprintf("Fix the value, or leave the column out of the capture: columns => %s.",
                 quote_literal_cstr(psprintf("-%s", quote_identifier(column)))));
}

// Errors, naming the column, where a value has a character that UTF-8 does not have.
void check_characters_of(const CaptureState& state, Relation rel, const Change& change, const log::NewEvent& event) {
    std::string_view payload = text_view(reinterpret_cast<const text*>(DatumGetPointer(event.payload)));
    Size good = convertible(payload);
    bool key_is_good = event.key == nullptr || convertible(text_view(event.key)) == VARSIZE_ANY_EXHDR(event.key);
    if (good == payload.size() && key_is_good) return;
    for (const Row* row : {change.after, change.before}) {
        for (int i = 0; row != nullptr && i < state.column_count; ++i) {
            CapturedColumn& column = state.columns[i];
            if (row->nulls[column.index] || !(column.shown || column.in_key)) continue;
            StringInfoData value;
            initStringInfo(&value);
            append_json(&value, &column.json, row->values[column.index]);
            std::string_view text(value.data, static_cast<Size>(value.len));
            Size at = convertible(text);
            const char* name = NameStr(TupleDescAttr(RelationGetDescr(rel), column.index)->attname);
            if (at != text.size()) refuse_value(rel, name, text, at);
        }
    }
    for (int i = 0; i < state.column_count; ++i) {
        const char* name = NameStr(TupleDescAttr(RelationGetDescr(rel), state.columns[i].index)->attname);
        if (Size at = convertible(name); at != strlen(name)) refuse_value(rel, name, name, at);
    }
    refuse_character(
        psprintf("a change of table \"%s\" cannot be published: it holds a character that cannot be delivered",
                 RelationGetRelationName(rel)),
        payload, good, "Fix the value, or the names of its columns.");
}

Operation operation_of(const TriggerData* fired) {
    if (TRIGGER_FIRED_BY_INSERT(fired->tg_event)) return Operation::insert;
    if (TRIGGER_FIRED_BY_UPDATE(fired->tg_event)) return Operation::update;
    if (TRIGGER_FIRED_BY_DELETE(fired->tg_event)) return Operation::remove;
    return Operation::truncate;
}

void check_call(FunctionCallInfo fcinfo) {
    if (!CALLED_AS_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("eventbus.publish_change can only be called as a trigger"),
                        errhint("eventbus.capture makes the triggers for a table.")));
    auto* fired = reinterpret_cast<TriggerData*>(fcinfo->context);
    bool row = TRIGGER_FIRED_FOR_ROW(fired->tg_event);
    bool truncate = TRIGGER_FIRED_BY_TRUNCATE(fired->tg_event);
    if (TRIGGER_FIRED_BEFORE(fired->tg_event) || row == truncate)
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("trigger \"%s\" cannot publish changes", fired->tg_trigger->tgname),
                        errdetail("eventbus.publish_change is for triggers AFTER or INSTEAD OF an operation FOR EACH "
                                  "ROW, and AFTER TRUNCATE FOR EACH STATEMENT."),
                        errhint("Make the trigger again, or let eventbus.capture make it.")));
    PreventCommandIfReadOnly("eventbus.publish_change");
}

}  // namespace

}  // namespace eventbus::capture

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_publish_change);
}

using namespace eventbus;
using namespace eventbus::capture;

Datum eventbus_publish_change(PG_FUNCTION_ARGS) {
    check_call(fcinfo);
    auto* fired = reinterpret_cast<TriggerData*>(fcinfo->context);
    CaptureState state = *capture_state(fired);  // a trigger within this one may make it again

    Change change = {operation_of(fired), nullptr, nullptr, nullptr};
    TupleDesc description = RelationGetDescr(fired->tg_relation);
    Row first = {};
    Row second = {};
    HeapTuple result = nullptr;
    if (change.operation != Operation::truncate) {
        first = take_apart(fired->tg_trigtuple, description);
        (change.operation == Operation::insert ? change.after : change.before) = &first;
        result = fired->tg_trigtuple;
    }
    if (change.operation == Operation::update) {
        second = take_apart(fired->tg_newtuple, description);
        change.after = &second;
        result = fired->tg_newtuple;
    }
    // What comes instead of an operation has to hand the row on; what comes after one returns nothing.
    if (!TRIGGER_FIRED_INSTEAD(fired->tg_event)) result = nullptr;

    bool any = change.operation != Operation::update || mark_changes(state, &change);
    if (any || state.unchanged) {
        log::NewEvent event = {};
        event.topic = state.topics[static_cast<int>(change.operation)];
        event.key = make_key(state, change);
        event.payload = make_payload(state, change);
        event.payload_column = log::column_text;  // and no content type, which makes it JSON
        event.headers = state.extra_headers;
        event.has_headers = state.extra_headers != 0;
        event.captured_by = publishing_role();
        check_size(event);
        if (!database_is_utf8()) check_characters_of(state, fired->tg_relation, change, event);
        intake::append_later(&event);
    }
    return PointerGetDatum(result);
}
