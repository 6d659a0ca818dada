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
    Oid type;           // base type: domains are looked through
    FmgrInfo function;  // the type's output, or a cast to json
    struct JsonWalk* walk;
    struct JsonParts* parts;  // what arrays and rows are made of; nullptr: not looked up yet
};

// Types are looked up once, and kept in `memory` for as long as nothing of what is noted here changes. What arrays and
// rows are made of is looked up as it is met, which locks nothing.
struct JsonWalk {
    MemoryContext memory;
    // Decoding: only casts in C that were made for the type are called. A user's function has nothing to do in a
    // process that decodes, and finds no tables.
    bool in_c_only;
    List* relations;  // whose columns were looked up
    List* functions;  // hash values in their caches, as invalidations name them
    List* casts;
};
void note_function(JsonWalk* walk, Oid function);
void note_cast_to_json(JsonWalk* walk, Oid type);
// As a syscache's callback asks.
bool depends_on(const JsonWalk& walk, int cache, uint32 hash);

void look_up_json_type(Oid type, JsonWalk* walk, JsonType* result);
void look_up_output(JsonWalk* walk, Oid type, FmgrInfo* function);

void append_json(StringInfo out, JsonType* type, Datum value);

// A value of type json.
void append_json_text(StringInfo out, Datum value);

// A "char" beyond ASCII is no text by itself; written as from PostgreSQL 16 on. False where it is within.
bool append_single_byte(StringInfo out, Datum value);

// A text in the server's encoding as a JSON string, quotes included.
void append_json_string(StringInfo out, std::string_view text);

}  // namespace eventbus
