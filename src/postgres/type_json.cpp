#include "postgres/json_cast.hpp"
#include "postgres/json_values.hpp"
#include "postgres/json_walk.hpp"

extern "C" {
#include "access/transam.h"
#include "catalog/pg_type_d.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/uuid.h"
}

namespace eventbus {

namespace {

List* with(List* hashes, uint32 hash, MemoryContext memory) {
    MemoryContext before = MemoryContextSwitchTo(memory);
    hashes = list_append_unique_oid(hashes, hash);
    MemoryContextSwitchTo(before);
    return hashes;
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

}  // namespace

void note_function(JsonWalk* walk, Oid function) {
    if (function < FirstNormalObjectId) return;
    walk->functions = with(walk->functions, GetSysCacheHashValue1(PROCOID, ObjectIdGetDatum(function)), walk->memory);
}

void note_cast_to_json(JsonWalk* walk, Oid type) {
    uint32 hash = GetSysCacheHashValue2(CASTSOURCETARGET, ObjectIdGetDatum(type), ObjectIdGetDatum(JSONOID));
    walk->casts = with(walk->casts, hash, walk->memory);
}

bool depends_on(const JsonWalk& walk, int cache, uint32 hash) {
    const List* hashes = cache == PROCOID ? walk.functions : cache == CASTSOURCETARGET ? walk.casts : NIL;
    return hashes != NIL && (hash == 0 || list_member_oid(hashes, hash));
}

void look_up_output(JsonWalk* walk, Oid type, FmgrInfo* function) {
    Oid output;
    bool varlena;
    getTypeOutputInfo(type, &output, &varlena);
    note_function(walk, output);
    fmgr_info_cxt(output, function, walk->memory);
}

void look_up_json_type(Oid type, JsonWalk* walk, JsonType* result) {
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
        default:
            if (OidIsValid(get_element_type(result->type))) {
                result->kind = Kind::array;
                return;
            }
            if (type_is_rowtype(result->type)) {
                result->kind = Kind::row;
                return;
            }
            if (look_up_json_cast(result)) {
                result->kind = Kind::converted;
                return;
            }
            result->kind = Kind::quoted;
    }
    look_up_output(walk, result->type, &result->function);
}

void append_json_text(StringInfo out, Datum value) {
    text* json = DatumGetTextPP(value);
    put(out, VARDATA_ANY(json), static_cast<int>(VARSIZE_ANY_EXHDR(json)));
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
            append_json_cast(out, type, value);
            return;
        case JsonType::Kind::json:
            append_json_text(out, value);
            return;
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
