// What it is: what the publications that a client names say of a table: operations, columns, rows, under which name.
// Who calls it: the plan of a table, and whoever writes one of its changes.
// Never: fails because a publication did not exist yet when a change was made: it then publishes nothing.
#pragma once

#include "decoder/plan.hpp"

namespace eventbus::decoder {

class Publications;

Publications* make_publications(MemoryContext memory, List* names, bool tell);
void outdate_publications(Publications* publications);

struct Publishing {
    bool any;
    bool operations[operation_count];
    Oid as;                    // the table itself, or an ancestor under whose name it goes
    const Bitmapset* columns;  // attribute numbers of `as`; nullptr: all
    RowFilters* filters;       // nullptr: none
};

// Palloc'd in the current context.
Publishing look_up_publishing(Publications* publications, Relation relation);

// Whether a change goes out, by the row filters: an UPDATE that makes a row fit becomes an INSERT, one that makes it
// unfit a DELETE, as PostgreSQL has it. The rows stand in the plan; without `has_before` the old one is not there.
bool pass_row_filters(RelationPlan* plan, Operation* operation, bool has_before);

}  // namespace eventbus::decoder
