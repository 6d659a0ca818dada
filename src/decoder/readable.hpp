// What it is: whether the values of a type can be written by functions in C alone.
// Who calls it: the plan of a table; wal, which makes a dead letter of what cannot be written.
// Never: is asked for each value.
#pragma once

#include "decoder/decoder.hpp"

namespace eventbus::decoder {

// A type's output function, and those of what it is made of, run with the rights of the process that decodes, and under
// a historic snapshot: in another language than C they could do anything, or look for tables that are not there. The
// relations that the answer depends on are noted in the plan.
bool is_readable(RelationPlan* plan, Oid type);

// The plan has such a column. Warns, where its values are left out.
void note_unreadable(RelationPlan* plan, const char* column, const Options& options);

// Errors where the change has a value of such a column.
void refuse_unreadable(const RelationPlan& plan, const Change& change);

}  // namespace eventbus::decoder
