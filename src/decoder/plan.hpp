// What it is: what decoding needs to know of a table, looked up once: wanted or not, columns, how values are written.
// Who calls it: the formats; wal, which makes events of the same changes.
// Never: outlives a change of the table: PostgreSQL's invalidations make it stale, and it is looked up again.
#pragma once

#include "decoder/plugin_options.hpp"
#include "postgres/type_json.hpp"

extern "C" {
#include "nodes/execnodes.h"
#include "replication/reorderbuffer.h"
#include "utils/hsearch.h"
}

namespace eventbus::decoder {

using eventbus::put;
inline void put(StringInfo out, const Piece& piece) {
    put(out, piece.text, piece.length);
}

// How wal2json writes a value.
enum class ValueKind : unsigned char { int16, int32, int64, oid, number, boolean, bytea, single_byte, text, other };

struct ValueWriter {
    ValueKind kind;
    FmgrInfo output;
};

struct Column {
    int index;          // of the value in the deformed row
    AttrNumber number;  // in the table as published
    bool varlena;       // an UPDATE's new row may hold a pointer to what it has not changed
    bool by_value;
    int16 length;
    bool in_identity;
    bool in_primary_key;
    bool unreadable;  // no output function that may run here; see readable.hpp
    Oid type;         // as declared
    Piece name;       // as a JSON string
    JsonType json;    // debezium
    // wal2json
    ValueWriter writer;
    Piece head;       // version 2: up to the value
    Piece tail;       // version 2: what comes behind a new value
    Piece key;        // version 2: the whole column within "pk"
    Piece type_text;  // version 1, as are the rest: what each of its arrays says of the column
    Piece type_oid;
    Piece position;
    Piece optional;
    Piece default_value;
};

struct Row {
    Datum* values;
    bool* nulls;
};

// The row filters of publications; see publication.hpp.
struct RowFilters;

struct RelationPlan {
    Oid relation;
    Oid published;         // whose name and columns it has: the table itself, or an ancestor
    bool stale;            // not to be used for another change; its memory goes with the next look-up of a table
    RelationPlan* next;    // of the stale ones
    MemoryContext memory;  // of all of it
    JsonWalk walk;         // and on what else it depends
    bool any_unreadable;
    bool wanted;  // by the lists of tables and by publications
    bool operations[operation_count];
    char* schema;  // as published: a partition may go under its ancestor's name
    char* table;
    bool has_identity_index;
    bool has_primary_key;
    bool identity_full;
    bool whole_identity;  // no index says what the identity is: all columns are
    Column* columns;
    int column_count;
    Row before;  // room for a row each
    Row after;
    bool under_ancestor;  // a partition that goes under another name
    RowFilters* filters;  // nullptr: none
    Piece source;         // debezium: the constant beginning of "source"
    Piece title;          // wal2json: "schema" and "table"
    void* more;           // wal: what it adds
};

class Plans;

// Fills in what a format wants of a plan, in the plan's memory.
using PreparePlan = void (*)(RelationPlan* plan, Relation published, const Options& options);

// Whether anybody asks for the table's changes, of which the plan knows the names by now; it may take operations from
// it. What nobody asks for is not prepared: who does not want a table does not meet what is wrong with it.
struct AskForTable {
    bool (*asks)(void* context, RelationPlan* plan);  // nullptr: yes
    void* context;
};

// One a decoding context; it lives in `memory`, and goes with it.
Plans* make_plans(MemoryContext memory, const Options* options, PreparePlan prepare, AskForTable ask = {});
// What it returns is there until the next call.
RelationPlan* plan_for(Plans* plans, Relation relation);

// A piece out of a buffer, which is no longer there then.
Piece piece_of(const StringInfoData& text);

// Room for a row of so many columns; palloc'd.
Row make_row(int count);

// Takes a row apart into `row`.
void take_apart(HeapTuple tuple, Relation relation, Row* row);
// Whether a varlena is a pointer to a TOASTed value that the UPDATE did not touch: there is nothing to write.
inline bool is_untouched(const Row& row, int index) {
    return !row.nulls[index] && VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(row.values[index]));
}
// Whether there is a value, and none that could be written.
inline bool is_unavailable(const Column& column, const Row& row) {
    if (column.unreadable) return !row.nulls[column.index];
    return column.varlena && is_untouched(row, column.index);
}

}  // namespace eventbus::decoder
