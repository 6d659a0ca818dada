// What it is: values and rows of PostgreSQL as JSON text, the way to_jsonb has them, without making a jsonb.
// Who calls it: intake, for captured changes; decoder.
// Never: keeps anything of a value: what it writes is copied into the buffer it is given.
#pragma once

#include <string_view>

#include "postgres/prelude.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
}

namespace eventbus {

// appendBinaryStringInfo without a call for what fits, and without the closing zero, which our buffers do not need.
inline void put(StringInfo out, const char* bytes, int count) {
    if (out->len + count >= out->maxlen) enlargeStringInfo(out, count);
    memcpy(out->data + out->len, bytes, static_cast<Size>(count));
    out->len += count;
}
inline void put(StringInfo out, char c) {
    if (out->len + 1 >= out->maxlen) enlargeStringInfo(out, 1);
    out->data[out->len++] = c;
}
template <int size>
inline void put(StringInfo out, const char (&literal)[size]) {
    put(out, literal, size - 1);
}

// How the values of one type become JSON; looked up once.
struct JsonType {
    enum class Kind : unsigned char {
        boolean,
        number,
        date_time,
        json,
        jsonb,
        text,
        uuid,
        quoted,
        converted,
        array,
        row
    };
    Kind kind;
    Oid type;                 // base type: domains are looked through
    FmgrInfo function;        // the type's output, or what converts it to json
    struct JsonWalk* walk;    // of arrays and rows
    struct JsonParts* parts;  // what they are made of; nullptr: not looked up yet
};

// Looks a type up; the function's memory is in `memory`, which must live as long as the result. Arrays and rows are
// left to PostgreSQL's to_json, which calls casts to json in whatever language.
void look_up_json_type(Oid type, MemoryContext memory, JsonType* result);

// The same for decoding, where such a cast must not run: a user's function has nothing to do in a process that decodes,
// and finds no tables. Only casts in C that were made for the type are called, and arrays and rows are walked here.
// What they are made of is looked up as it is met, which locks nothing.
struct JsonWalk {
    MemoryContext memory;
    List* relations;  // whose columns were looked up
};
void look_up_json_type(Oid type, JsonWalk* walk, JsonType* result);

void append_json(StringInfo out, JsonType* type, Datum value);

// A "char" beyond ASCII is no text by itself; written as from PostgreSQL 16 on. False where it is within.
bool append_single_byte(StringInfo out, Datum value);

// A text in the server's encoding as a JSON string, quotes included.
void append_json_string(StringInfo out, std::string_view text);

}  // namespace eventbus
