// What it is: what both versions of wal2json's format share: how values and names are written; a change in version 2.
// Who calls it: the two versions; wal, which makes events of the same changes.
// Never: differs from wal2json 2.6 but where that writes no JSON, or loses something; docs/output-plugin.md lists where.
#pragma once

#include "decoder/decoder.hpp"

namespace eventbus::decoder {

void prepare_values(RelationPlan* plan, Relation published, const Options& options);
void append_wal2json_value(StringInfo out, Column* column, Datum value, const Options& options);

// The type's name as a JSON string. wal2json takes the quotes of a quoted name for those of the string.
Piece type_name(const char* formatted);
// The text of a column's default expression as a JSON string, or null.
Piece default_text(Relation published, Form_pg_attribute attribute);

// A message's content as a JSON string: NULs included, and byte by byte where it is no text.
void append_content(StringInfo out, const char* content, Size size);

Piece copy_piece(const char* text);

// Version 2's object of a change. False, and nothing is written, where it has none: nothing says which row was changed.
bool append_wal2json_2(StringInfo out, const RelationPlan& plan, const Change& change, const Options& options,
                       const ReorderBufferTXN* txn);

}  // namespace eventbus::decoder
