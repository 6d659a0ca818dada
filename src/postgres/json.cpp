// What it is: see json.hpp.
// Who calls it: see json.hpp.
// Never: see json.hpp.
#include "postgres/json_values.hpp"
#include "postgres/json_walk.hpp"

extern "C" {
#include "access/transam.h"
#include "catalog/pg_cast.h"
#include "catalog/pg_language_d.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/uuid.h"
}

namespace eventbus {

namespace {

// A type of somebody's own may say how it becomes json, by a cast.
Oid cast_to_json(Oid type) {
    if (type < FirstNormalObjectId) return InvalidOid;
    HeapTuple cast = SearchSysCache2(CASTSOURCETARGET, ObjectIdGetDatum(type), ObjectIdGetDatum(JSONOID));
    if (!HeapTupleIsValid(cast)) return InvalidOid;
    auto* form = reinterpret_cast<Form_pg_cast>(GETSTRUCT(cast));
    Oid function = form->castmethod == COERCION_METHOD_FUNCTION ? form->castfunc : InvalidOid;
    ReleaseSysCache(cast);
    return function;
}

// In C, and for this type alone: what takes any type may look up its casts in turn.
bool is_made_in_c(Oid function, Oid type) {
    HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
    if (!HeapTupleIsValid(tuple)) return false;
    auto* form = reinterpret_cast<Form_pg_proc>(GETSTRUCT(tuple));
    bool is = form->prolang == ClanguageId && form->pronargs > 0 && form->proargtypes.values[0] == type;
    ReleaseSysCache(tuple);
    return is;
}

void use_output(JsonType* result, MemoryContext memory) {
    Oid output;
    bool varlena;
    getTypeOutputInfo(result->type, &output, &varlena);
    fmgr_info_cxt(output, &result->function, memory);
}

// to_json has to be told what it converts; outside of an expression only a made-up one can say it.
void use_to_json(JsonType* result, MemoryContext memory) {
    fmgr_info_cxt(F_TO_JSON, &result->function, memory);
    MemoryContext before = MemoryContextSwitchTo(memory);
    Node* argument = reinterpret_cast<Node*>(makeNullConst(result->type, -1, InvalidOid));
    Node* call = reinterpret_cast<Node*>(
        makeFuncExpr(F_TO_JSON, JSONOID, list_make1(argument), InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL));
    fmgr_info_set_expr(call, &result->function);
    MemoryContextSwitchTo(before);
}

void append_datum_text(StringInfo out, Datum value) {
    auto* packed = reinterpret_cast<text*>(PG_DETOAST_DATUM_PACKED(value));
    append_json_string(out, {VARDATA_ANY(packed), static_cast<std::size_t>(VARSIZE_ANY_EXHDR(packed))});
    if (packed != reinterpret_cast<text*>(DatumGetPointer(value))) pfree(packed);
}

constexpr char hex[] = "0123456789abcdef";

void append_uuid(StringInfo out, const pg_uuid_t* uuid) {
    char text[2 + 36];
    char* at = text;
    *at++ = '"';
    for (int i = 0; i < UUID_LEN; ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) *at++ = '-';
        *at++ = hex[uuid->data[i] >> 4];
        *at++ = hex[uuid->data[i] & 15];
    }
    *at = '"';
    put(out, text, sizeof text);
}

// Numbers that JSON does not know (NaN, Infinity) become strings.
void append_number(StringInfo out, const char* digits) {
    const char* first = *digits == '-' ? digits + 1 : digits;
    if (*first >= '0' && *first <= '9') {
        put(out, digits, static_cast<int>(strlen(digits)));
    } else {
        append_json_string(out, digits);
    }
}

// `walk` is nullptr where PostgreSQL is to walk arrays and rows.
void look_up(Oid type, MemoryContext memory, JsonWalk* walk, JsonType* result) {
    using Kind = JsonType::Kind;
    result->type = getBaseType(type);
    result->walk = walk;
    result->parts = nullptr;
    switch (result->type) {
        case BOOLOID:
            result->kind = Kind::boolean;
            return;
        case INT2OID:
        case INT4OID:
        case INT8OID:
        case FLOAT4OID:
        case FLOAT8OID:
        case NUMERICOID:
            result->kind = Kind::number;
            break;
        case DATEOID:
        case TIMESTAMPOID:
        case TIMESTAMPTZOID:
            result->kind = Kind::date_time;
            return;
        case UUIDOID:
            result->kind = Kind::uuid;
            return;
        case JSONOID:
            result->kind = Kind::json;
            return;
        case JSONBOID:
            result->kind = Kind::jsonb;
            return;
        case TEXTOID:
        case VARCHAROID:
        case BPCHAROID:
            result->kind = Kind::text;
            return;
        default: {
            bool array = OidIsValid(get_element_type(result->type)) || result->type == RECORDARRAYOID;
            if (array || type_is_rowtype(result->type)) {
                result->kind = walk == nullptr ? Kind::converted : array ? Kind::array : Kind::row;
                if (walk == nullptr) use_to_json(result, memory);
                return;
            }
            Oid function = cast_to_json(result->type);
            if (OidIsValid(function) && (walk == nullptr || is_made_in_c(function, result->type))) {
                result->kind = Kind::converted;
                fmgr_info_cxt(function, &result->function, memory);
                return;
            }
            result->kind = Kind::quoted;
        }
    }
    use_output(result, memory);
}

}  // namespace

void look_up_json_type(Oid type, MemoryContext memory, JsonType* result) {
    look_up(type, memory, nullptr, result);
}

void look_up_json_type(Oid type, JsonWalk* walk, JsonType* result) {
    look_up(type, walk->memory, walk, result);
}

void append_json(StringInfo out, JsonType* type, Datum value) {
    switch (type->kind) {
        case JsonType::Kind::boolean:
            if (DatumGetBool(value))
                put(out, "true");
            else
                put(out, "false");
            return;
        case JsonType::Kind::number: {
            if (type->type == INT4OID || type->type == INT8OID || type->type == INT2OID) {
                char digits[MAXINT8LEN + 1];
                int64 number = type->type == INT8OID   ? DatumGetInt64(value)
                               : type->type == INT4OID ? DatumGetInt32(value)
                                                       : DatumGetInt16(value);
                put(out, digits, pg_lltoa(number, digits));
                return;
            }
            if (type->type == NUMERICOID && append_json_numeric(out, value)) return;
            char* digits = OutputFunctionCall(&type->function, value);
            append_number(out, digits);
            pfree(digits);
            return;
        }
        case JsonType::Kind::date_time: {
            if (type->type != DATEOID &&
                append_json_timestamp(out, DatumGetTimestamp(value), type->type == TIMESTAMPTZOID))
                return;
            char words[MAXDATELEN + 1];
            JsonEncodeDateTime(words, value, type->type, nullptr);
            put(out, '"');
            put(out, words, static_cast<int>(strlen(words)));
            put(out, '"');
            return;
        }
        case JsonType::Kind::converted:
            value = FunctionCall1(&type->function, value);
            [[fallthrough]];
        case JsonType::Kind::json: {
            text* json = DatumGetTextPP(value);
            put(out, VARDATA_ANY(json), static_cast<int>(VARSIZE_ANY_EXHDR(json)));
            return;
        }
        case JsonType::Kind::jsonb:
            append_jsonb(out, value);
            return;
        case JsonType::Kind::array:
            append_json_array(out, type, value);
            return;
        case JsonType::Kind::row:
            append_json_row(out, type, value);
            return;
        case JsonType::Kind::text:
            append_datum_text(out, value);
            return;
        case JsonType::Kind::uuid:
            append_uuid(out, DatumGetUUIDP(value));
            return;
        case JsonType::Kind::quoted: {
            char* words = OutputFunctionCall(&type->function, value);
            append_json_string(out, words);
            pfree(words);
            return;
        }
    }
}

bool append_single_byte(StringInfo out, Datum value) {
    auto byte = static_cast<unsigned char>(DatumGetChar(value));
    if (!IS_HIGHBIT_SET(byte)) return false;
    appendStringInfo(out, "\"\\\\%03o\"", byte);
    return true;
}

void append_json_string(StringInfo out, std::string_view text) {
    enlargeStringInfo(out, static_cast<int>(text.size()) + 2);
    put(out, '"');
    const char* plain = text.data();  // what needs no escape and is not copied yet
    const char* end = text.data() + text.size();
    for (const char* at = plain; at < end; ++at) {
        auto c = static_cast<unsigned char>(*at);
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        put(out, plain, static_cast<int>(at - plain));
        plain = at + 1;
        put(out, '\\');
        switch (c) {
            case '\b':
                put(out, 'b');
                break;
            case '\f':
                put(out, 'f');
                break;
            case '\n':
                put(out, 'n');
                break;
            case '\r':
                put(out, 'r');
                break;
            case '\t':
                put(out, 't');
                break;
            case '"':
            case '\\':
                put(out, static_cast<char>(c));
                break;
            default:
                put(out, "u00");
                put(out, hex[c >> 4]);
                put(out, hex[c & 15]);
        }
    }
    put(out, plain, static_cast<int>(end - plain));
    put(out, '"');
}

}  // namespace eventbus
