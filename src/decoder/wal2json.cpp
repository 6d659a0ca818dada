#include "decoder/wal2json.hpp"

extern "C" {
#include "access/genam.h"
#include "access/htup_details.h"
#include "catalog/indexing.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
}

namespace eventbus::decoder {

namespace {

ValueKind kind_of(Oid type) {
    switch (type) {
        case INT2OID:
            return ValueKind::int16;
        case INT4OID:
            return ValueKind::int32;
        case INT8OID:
            return ValueKind::int64;
        case OIDOID:
            return ValueKind::oid;
        case FLOAT4OID:
        case FLOAT8OID:
        case NUMERICOID:
            return ValueKind::number;
        case BOOLOID:
            return ValueKind::boolean;
        case BYTEAOID:
            return ValueKind::bytea;
        case CHAROID:
            return ValueKind::single_byte;
        case TEXTOID:
        case VARCHAROID:
        case BPCHAROID:
        case JSONOID:
            return ValueKind::text;
        default:
            return ValueKind::other;
    }
}

// Version 1 writes values of a domain as those of its base type where it names that instead of the domain.
Oid type_of_values(const Column& column, const Options& options) {
    if (options.version != 1 || !options.include_types || !options.include_domain_data_type) return column.type;
    HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(column.type));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for type %u", column.type);
    auto* form = reinterpret_cast<Form_pg_type>(GETSTRUCT(tuple));
    Oid type = form->typtype == TYPTYPE_DOMAIN ? form->typbasetype : column.type;
    ReleaseSysCache(tuple);
    return type;
}

void append_integer(StringInfo out, int64 number, bool as_string) {
    char digits[MAXINT8LEN + 3];
    char* at = digits;
    if (as_string) *at++ = '"';
    at += pg_lltoa(number, at);
    if (as_string) *at++ = '"';
    put(out, digits, static_cast<int>(at - digits));
}

// NaN and the infinities are no numbers in JSON.
void append_number(StringInfo out, const char* digits, bool as_string) {
    if (as_string) {
        append_json_string(out, digits);
        return;
    }
    const char* first = *digits == '-' ? digits + 1 : digits;
    if (*first == 'N' || *first == 'I')
        put(out, "null");
    else
        put(out, digits, static_cast<int>(strlen(digits)));
}

// In hexadecimal, whatever bytea_output says.
void append_bytea(StringInfo out, Datum value) {
    auto* bytes = DatumGetByteaPP(value);
    auto size = static_cast<int>(VARSIZE_ANY_EXHDR(bytes));
    enlargeStringInfo(out, 2 * size + 2);
    put(out, '"');
    out->len += static_cast<int>(hex_encode(VARDATA_ANY(bytes), static_cast<size_t>(size), out->data + out->len));
    put(out, '"');
}

}  // namespace

void prepare_values(RelationPlan* plan, Relation, const Options& options) {
    for (int i = 0; i < plan->column_count; ++i) {
        Column* column = &plan->columns[i];
        if (column->unreadable) continue;
        Oid type = type_of_values(*column, options);
        column->writer.kind = kind_of(type);
        Oid output;
        bool varlena;
        getTypeOutputInfo(type, &output, &varlena);
        fmgr_info(output, &column->writer.output);
    }
}

void append_wal2json_value(StringInfo out, Column* column, Datum value, const Options& options) {
    bool as_string = options.numbers_as_strings;
    switch (column->writer.kind) {
        case ValueKind::int16:
            append_integer(out, DatumGetInt16(value), as_string);
            return;
        case ValueKind::int32:
            append_integer(out, DatumGetInt32(value), as_string);
            return;
        case ValueKind::int64:
            append_integer(out, DatumGetInt64(value), as_string);
            return;
        case ValueKind::oid:
            append_integer(out, DatumGetObjectId(value), as_string);
            return;
        case ValueKind::boolean:
            if (DatumGetBool(value))
                put(out, "true");
            else
                put(out, "false");
            return;
        case ValueKind::bytea:
            append_bytea(out, value);
            return;
        case ValueKind::text: {
            auto* packed = DatumGetTextPP(value);
            append_json_string(out, {VARDATA_ANY(packed), static_cast<std::size_t>(VARSIZE_ANY_EXHDR(packed))});
            return;
        }
        case ValueKind::number:
            append_number(out, OutputFunctionCall(&column->writer.output, value), as_string);
            return;
        case ValueKind::single_byte:
            if (append_single_byte(out, value)) return;
            [[fallthrough]];
        case ValueKind::other:
            append_json_string(out, OutputFunctionCall(&column->writer.output, value));
            return;
    }
}

Piece copy_piece(const char* text) {
    return {pstrdup(text), static_cast<int>(strlen(text))};
}

Piece type_name(const char* formatted) {
    Size length = strlen(formatted);
    bool plain = length > 2 && formatted[0] == '"' && formatted[length - 1] == '"';
    for (Size i = 1; plain && i < length - 1; ++i)
        plain = formatted[i] != '"' && formatted[i] != '\\' && static_cast<unsigned char>(formatted[i]) >= ' ';
    if (plain) return copy_piece(formatted);
    StringInfoData text;
    initStringInfo(&text);
    append_json_string(&text, formatted);
    return piece_of(text);
}

Piece default_text(Relation published, Form_pg_attribute attribute) {
    Piece result = {"null", 4};
    if (!attribute->atthasdef || attribute->attgenerated != '\0') return result;
    Relation defaults = table_open(AttrDefaultRelationId, AccessShareLock);
    ScanKeyData keys[2];
    ScanKeyInit(&keys[0], Anum_pg_attrdef_adrelid, BTEqualStrategyNumber, F_OIDEQ,
                ObjectIdGetDatum(RelationGetRelid(published)));
    ScanKeyInit(&keys[1], Anum_pg_attrdef_adnum, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(attribute->attnum));
    SysScanDesc scan = systable_beginscan(defaults, AttrDefaultIndexId, true, nullptr, 2, keys);
    HeapTuple tuple = systable_getnext(scan);
    if (HeapTupleIsValid(tuple)) {
        bool null;
        Datum expression = fastgetattr(tuple, Anum_pg_attrdef_adbin, RelationGetDescr(defaults), &null);
        if (!null) {
            Datum words = DirectFunctionCall2(pg_get_expr, expression, ObjectIdGetDatum(RelationGetRelid(published)));
            StringInfoData quoted;
            initStringInfo(&quoted);
            append_json_string(&quoted, TextDatumGetCString(words));
            result = piece_of(quoted);
        }
    }
    systable_endscan(scan);
    table_close(defaults, AccessShareLock);
    return result;
}

void append_content(StringInfo out, const char* content, Size size) {
    const char* end = content + size;
    const char* nul = static_cast<const char*>(memchr(content, '\0', size));
    auto length = static_cast<int>(size);
    if (nul == nullptr && pg_verify_mbstr(GetDatabaseEncoding(), content, length, true)) {
        append_json_string(out, {content, size});
        return;
    }
    // A NUL is no character to the server, but one to JSON; what lies between is still text, or nothing is.
    bool is_text = true;
    for (const char* at = content; is_text && at < end;) {
        const char* stop = static_cast<const char*>(memchr(at, '\0', static_cast<Size>(end - at)));
        if (stop == nullptr) stop = end;
        is_text = pg_verify_mbstr(GetDatabaseEncoding(), at, static_cast<int>(stop - at), true);
        at = stop + 1;
    }
    StringInfoData part;
    initStringInfo(&part);
    put(out, '"');
    for (const char* at = content; at < end; ++at) {
        auto c = static_cast<unsigned char>(*at);
        if (c != '\0' && (is_text || c < 0x80)) {
            part.len = 0;
            append_json_string(&part, {at, 1});
            put(out, part.data + 1, part.len - 2);
        } else {
            appendStringInfo(out, "\\u%04x", c);
        }
    }
    put(out, '"');
}

}  // namespace eventbus::decoder
