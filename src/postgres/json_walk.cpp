// Never: differs from PostgreSQL's to_json, but in which casts are called.
#include "postgres/json_walk.hpp"

extern "C" {
#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "parser/parse_coerce.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
}

namespace eventbus {

// Of an array the one type of its elements, of a row one a column. A type is looked up with its first value: the types
// of a row may be many more than what a value has.
struct JsonParts {
    JsonType* types;
    bool* known;
    Oid element;  // an array
    int16 length;
    bool by_value;
    char alignment;
    TupleDesc row;
};

namespace {

JsonParts* make_parts(int count) {
    auto* parts = static_cast<JsonParts*>(palloc0(sizeof(JsonParts)));
    parts->types = static_cast<JsonType*>(palloc0(sizeof(JsonType) * static_cast<Size>(count)));
    parts->known = static_cast<bool*>(palloc0(sizeof(bool) * static_cast<Size>(count)));
    return parts;
}

JsonParts* array_parts(const JsonType* type) {
    JsonParts* parts = make_parts(1);
    parts->element = get_element_type(type->type);
    get_typlenbyvalalign(parts->element, &parts->length, &parts->by_value, &parts->alignment);
    return parts;
}

JsonParts* row_parts(const JsonType* type) {
    Oid relation_oid = get_typ_typrelid(type->type);
    type->walk->relations = list_append_unique_oid(type->walk->relations, relation_oid);
    Relation relation = RelationIdGetRelation(relation_oid);
    if (!RelationIsValid(relation)) elog(ERROR, "could not open relation with OID %u", relation_oid);
    JsonParts* parts = make_parts(RelationGetDescr(relation)->natts + 1);
    parts->row = CreateTupleDescCopyConstr(RelationGetDescr(relation));
    RelationClose(relation);
    return parts;
}

// Set when all is known: a look-up may raise an error that does not end decoding.
JsonParts* parts_of(JsonType* type, JsonParts* (*look_up)(const JsonType*)) {
    if (type->parts == nullptr) {
        MemoryContext before = MemoryContextSwitchTo(type->walk->memory);
        JsonParts* parts = look_up(type);
        MemoryContextSwitchTo(before);
        type->parts = parts;
    }
    return type->parts;
}

void append_part(StringInfo out, JsonType* whole, int which, Oid type, Datum value) {
    JsonType* part = &whole->parts->types[which];
    if (!whole->parts->known[which]) {
        look_up_json_type(type, whole->walk, part);
        whole->parts->known[which] = true;
    }
    if (part->type == CHAROID && append_single_byte(out, value)) return;
    append_json(out, part, value);
}

// What a value says of itself is neither believed, for nothing keeps the type that it names as it was, nor passed over,
// for it may have been made as that type. SQL makes no such values: functions in C do.
[[noreturn]] void refuse(Oid declared, const char* what, Oid own) {
    const char* name = format_type_be_qualified(declared);
    ereport(ERROR,
            (errcode(ERRCODE_DATATYPE_MISMATCH),
             errmsg("a value of type %s is marked as %s %s", name, what, format_type_be_qualified(own)),
             errhint("What has made the value is at fault. Have it made again by SQL, as in %s.",
                     type_is_array(declared) ? psprintf("ARRAY[...]::%s", name) : psprintf("ROW(...)::%s", name))));
}

struct Elements {
    Datum* values;
    bool* nulls;
    int next;
};

void append_dimension(StringInfo out, JsonType* type, Elements* elements, const int* sizes, int dimensions) {
    put(out, '[');
    for (int i = 0; i < sizes[0]; ++i) {
        if (i > 0) put(out, ',');
        if (dimensions > 1) {
            append_dimension(out, type, elements, sizes + 1, dimensions - 1);
            continue;
        }
        int at = elements->next++;
        if (elements->nulls[at])
            put(out, "null");
        else
            append_part(out, type, 0, type->parts->element, elements->values[at]);
    }
    put(out, ']');
}

}  // namespace

void append_json_array(StringInfo out, JsonType* type, Datum value) {
    check_stack_depth();
    const JsonParts* parts = parts_of(type, array_parts);
    ArrayType* array = DatumGetArrayTypeP(value);
    if (ARR_ELEMTYPE(array) != parts->element && !IsBinaryCoercible(ARR_ELEMTYPE(array), parts->element))
        refuse(type->type, "an array of", ARR_ELEMTYPE(array));
    Elements elements = {};
    int count;
    deconstruct_array(array, parts->element, parts->length, parts->by_value, parts->alignment, &elements.values,
                      &elements.nulls, &count);
    if (count == 0)
        put(out, "[]");
    else
        append_dimension(out, type, &elements, ARR_DIMS(array), ARR_NDIM(array));
}

void append_json_row(StringInfo out, JsonType* type, Datum value) {
    check_stack_depth();
    HeapTupleHeader header = DatumGetHeapTupleHeader(value);
    if (HeapTupleHeaderGetTypeId(header) != type->type) refuse(type->type, "one of", HeapTupleHeaderGetTypeId(header));
    JsonParts* parts = parts_of(type, row_parts);
    HeapTupleData tuple = {};
    tuple.t_len = HeapTupleHeaderGetDatumLength(header);
    tuple.t_data = header;
    const int count = parts->row->natts;
    auto* values = static_cast<Datum*>(palloc(sizeof(Datum) * static_cast<Size>(count + 1)));
    auto* nulls = static_cast<bool*>(palloc(sizeof(bool) * static_cast<Size>(count + 1)));
    heap_deform_tuple(&tuple, parts->row, values, nulls);
    bool first = true;
    put(out, '{');
    for (int i = 0; i < count; ++i) {
        Form_pg_attribute column = TupleDescAttr(parts->row, i);
        if (column->attisdropped) continue;
        if (!first) put(out, ',');
        first = false;
        append_json_string(out, NameStr(column->attname));
        put(out, ':');
        if (nulls[i])
            put(out, "null");
        else
            append_part(out, type, i, column->atttypid, values[i]);
    }
    put(out, '}');
}

}  // namespace eventbus
