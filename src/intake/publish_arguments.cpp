// What it is: the arguments of publish and its kin, of whatever types applications have, as an event.
// Who calls it: publish, publish_text, publish_bytes, publish_wal, publish_now.
// Never: changes a payload: json and text are sent as they were written.
#include "core/json.hpp"
#include "intake/allowed.hpp"
#include "intake/characters.hpp"
#include "intake/publish.hpp"
#include "postgres/guest.hpp"
#include "postgres/rows.hpp"
#include "settings/settings.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "parser/parse_coerce.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
}

#include <cstring>

namespace eventbus::intake {

namespace {

constexpr const char* topic_hint = "A topic is 1 to 255 bytes long: words joined by dots, such as shop.order.created.";

// topic, payload, key, headers, content_type; some functions have no key.
constexpr int argument_topic = 0;
constexpr int argument_payload = 1;
constexpr const char* payload_is = "payload is";
constexpr const char* headers_are = "headers are";

[[noreturn]] void refuse_null(const char* function, const char* argument) {
    ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", argument),
                    errdetail("%s was called with a null %s.", function, argument),
                    std::strcmp(argument, "topic") == 0
                        ? errhint("%s", topic_hint)
                        : errhint("Publish the JSON value null, or an empty text, where there is nothing to say.")));
    pg_unreachable();
}

struct Argument {
    const char* name;  // "payload is", "headers are"
    Oid type;
    Datum value;
};

// The caller's type where the function takes any.
Argument argument_of(FunctionCallInfo fcinfo, int number, const char* name) {
    Oid type = get_fn_expr_argtype(fcinfo->flinfo, number);
    if (!OidIsValid(type)) {  // the fastpath's calls have no expression
        Oid* declared;
        int count;
        (void)get_func_signature(fcinfo->flinfo->fn_oid, &declared, &count);
        type = declared[number];
    }
    return {name, getBaseType(type), PG_GETARG_DATUM(number)};
}

const text* text_of_any(const Argument& argument) {
    switch (argument.type) {
        case TEXTOID:
        case VARCHAROID:
        case JSONOID:
            return DatumGetTextPP(argument.value);
        case UNKNOWNOID:
            return cstring_to_text(DatumGetCString(argument.value));
        default:
            break;
    }
    Oid function;
    bool varlena;
    FmgrInfo output;
    getTypeOutputInfo(argument.type, &function, &varlena);
    fmgr_info(function, &output);
    StringInfoData words;
    initStringInfo(&words);
    append_key_part(&words, argument.type, &output, argument.value);
    return cstring_to_text_with_len(words.data, words.len);
}

bool is_string(Oid type) {
    return type == UNKNOWNOID || TypeCategory(type) == TYPCATEGORY_STRING;
}

[[noreturn]] void refuse_type(const Argument& argument) {
    ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
                    errmsg("%s not JSON but of type %s", argument.name, format_type_be(argument.type)),
                    argument.type == BYTEAOID
                        ? errhint("eventbus.publish_bytes takes bytes as they are; a payload of publish is JSON.")
                        : errhint("Make it JSON with to_jsonb, or pass json, jsonb, or a text that is JSON.")));
    pg_unreachable();
}

// {1,"two"}: braces around what has no colon but in strings, as no JSON object has.
bool is_array_literal(std::string_view text) {
    constexpr std::string_view space = " \t\r\n";
    const std::size_t first = text.find_first_not_of(space);
    if (first == std::string_view::npos || text[first] != '{' || text[text.find_last_not_of(space)] != '}')
        return false;
    bool quoted = false;
    for (std::size_t i = first; i < text.size(); ++i) {
        if (text[i] == '\\') {
            ++i;
        } else if (text[i] == '"') {
            quoted = !quoted;
        } else if (text[i] == ':' && !quoted) {
            return false;
        }
    }
    return true;
}

// PostgreSQL's parser knows what is wrong with it; it takes what is nested deeper than is_json() looks.
void check_json_by_hand(const char* name, std::string_view text) {
    MemoryContext memory = CurrentMemoryContext;
    PG_TRY();
    { (void)DirectFunctionCall1(json_in, CStringGetDatum(pnstrdup(text.data(), text.size()))); }
    PG_CATCH();
    {
        MemoryContextSwitchTo(memory);
        ErrorData* error = CopyErrorData();
        if (error->sqlerrcode != ERRCODE_INVALID_TEXT_REPRESENTATION) PG_RE_THROW();
        FlushErrorState();
        error->message = psprintf("%s not valid JSON", name);
        error->hint =
            pstrdup(is_array_literal(text)
                        ? "It looks like an array of PostgreSQL's. A driver makes that of its language's "
                          "arrays: pass their JSON, JSON.stringify(value) in JavaScript, json.dumps(value) in "
                          "Python."
                    : std::strcmp(name, payload_is) == 0
                        ? "A JSON string has double quotes around it. eventbus.publish_text takes text of any "
                          "kind."
                        : "Headers are a JSON object, such as {\"priority\": 5}.");
        ReThrowError(error);
    }
    PG_END_TRY();
}

void check_json(const Argument& argument, std::string_view text) {
    if (argument.type != JSONOID && !is_json(text)) check_json_by_hand(argument.name, text);
}

Datum headers_of(const Argument& argument) {
    if (argument.type == JSONBOID) return PointerGetDatum(PG_DETOAST_DATUM_PACKED(argument.value));
    if (argument.type != JSONOID && !is_string(argument.type)) refuse_type(argument);
    std::string_view words = text_view(text_of_any(argument));
    check_json(argument, words);
    return DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(words.data(), words.size())));
}

// What is delivered of a jsonb is its text. The worst that its stored form can hide is a number such as 1e131071, a
// dozen bytes that become 131072; below that the text need not be made to know that it is small enough.
constexpr Size worst_growth = 16 * 1024;

void check_json_size(Datum payload) {
    Size stored = VARSIZE_ANY_EXHDR(DatumGetPointer(payload));
    check_payload_size(stored / 2);  // the text is never less than half of the stored form
    if (stored < static_cast<Size>(settings::max_payload) / worst_growth) return;
    Jsonb* json = DatumGetJsonbP(payload);
    StringInfoData text;
    initStringInfo(&text);
    JsonbToCString(&text, &json->root, static_cast<int>(stored));
    check_payload_size(static_cast<Size>(text.len));
    pfree(text.data);
}

void take_json(const Argument& argument, log::NewEvent* event) {
    if (argument.type == JSONBOID) {
        // Detoasted but in its packed form: what is stored is what came.
        event->payload = PointerGetDatum(PG_DETOAST_DATUM_PACKED(argument.value));
        event->payload_column = log::column_json;
        check_json_size(event->payload);
        return;
    }
    if (argument.type != JSONOID && !is_string(argument.type)) refuse_type(argument);
    const text* words = text_of_any(argument);
    check_payload_size(VARSIZE_ANY_EXHDR(words));
    check_json(argument, text_view(words));
    event->payload = PointerGetDatum(words);
    event->payload_column = log::column_text;
    event->content_type = json_content_type();
}

void check_content_type(std::string_view type) {
    bool valid = !type.empty() && type.size() <= 255;
    for (char c : type) valid = valid && c >= 0x20 && c < 0x7f;
    if (!valid)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("content_type must be 1 to 255 printable ASCII characters"),
                        errhint("For example text/plain, application/xml or application/octet-stream.")));
}

}  // namespace

const text* json_content_type() {
    static const text* words = nullptr;
    if (words == nullptr) {
        MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
        words = cstring_to_text("application/json");
        MemoryContextSwitchTo(before);
    }
    return words;
}

log::NewEvent read_event(FunctionCallInfo fcinfo, const char* function, Payload payload) {
    if (PG_ARGISNULL(argument_topic)) refuse_null(function, "topic");
    if (PG_ARGISNULL(argument_payload)) refuse_null(function, "payload");
    PreventCommandIfReadOnly(function);
    PreventCommandIfParallelMode(function);
    PreventCommandDuringRecovery(function);

    log::NewEvent event = {};
    event.topic = PG_GETARG_TEXT_PP(argument_topic);
    check_topic(text_view(event.topic));
    check_allowed(text_view(event.topic));

    if (payload == Payload::json) {
        take_json(argument_of(fcinfo, argument_payload, payload_is), &event);
    } else {
        event.payload = PointerGetDatum(PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(argument_payload)));
        event.payload_column = payload == Payload::text ? log::column_text : log::column_bytes;
        check_payload_size(VARSIZE_ANY_EXHDR(DatumGetPointer(event.payload)));
    }

    const int last = payload == Payload::json ? PG_NARGS() - 1 : PG_NARGS() - 2;
    const int argument_headers = last;
    const int argument_key = last - 1;
    if (argument_key > argument_payload && !PG_ARGISNULL(argument_key)) {
        event.key = text_of_any(argument_of(fcinfo, argument_key, "key is"));
        check_key_size(VARSIZE_ANY_EXHDR(event.key));
    }
    if (!PG_ARGISNULL(argument_headers)) {
        event.headers = headers_of(argument_of(fcinfo, argument_headers, headers_are));
        event.has_headers = true;
        check_headers(event.headers);
    }

    if (payload != Payload::json) {
        const int argument_content_type = last + 1;
        if (PG_ARGISNULL(argument_content_type)) refuse_null(function, "content_type");
        event.content_type = PG_GETARG_TEXT_PP(argument_content_type);
        check_content_type(text_view(event.content_type));
    }

    check_characters(event);
    return event;
}

}  // namespace eventbus::intake
