// What it is: what events of rows have in common: the columns of their key, the key, the words of their topic.
// Who calls it: intake, for captured changes; wal, for decoded ones.
// Never: locks anything: decoding must not wait, and a trigger has its table's lock.
#pragma once

#include "postgres/prelude.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
}

namespace eventbus {

inline constexpr int longest_key = 1024;  // bytes in UTF-8

// The columns that make the key of a relation's rows by default, in their index's order; NIL where there is neither a
// replica identity by index nor a primary key.
List* identity_columns(Relation rel);

// A value of a key's column as text: the same whatever the session has set, so that a row has one key. `type` is the
// base type.
void append_key_part(StringInfo out, Oid type, FmgrInfo* output, Datum value);

// A key of the text that stands in the buffer behind room for a varlena's header. One that is longer than a key may
// be is cut, and told apart by a hash of the whole: order among its events stays.
text* make_event_key(StringInfo words);

// A name as a word of a topic: what a topic may not hold, or what would split a name into words, becomes an underscore.
void append_topic_word(StringInfo topic, const char* name);
// The topic of a table's changes: schema, table and operation.
void append_table_topic(StringInfo topic, const char* schema, const char* table, const char* operation);

}  // namespace eventbus
