// What it is: the end of a segment, where every event is added: its place, its lock, its tuples.
// Who calls it: append and the writer of waiting events.
// Never: puts a tuple anywhere but on the last page of a segment: the reader relies on it (see lock_tail).
#pragma once

#include "source/log/log.hpp"

namespace eventbus::log {

// The current segment, with the lock that a writer holds to the end of its transaction.
int lock_current_segment(const Relations& log, const SharedPlace* place);

// Puts tuples that are not large behind all others, in order, a WAL record a page. `current`: the tuples are of the
// (sub)transaction that is current now.
void put_at_tail(Relation rel, HeapTupleData* tuples, int count, SharedPlace* place, int segment, bool current);

}  // namespace eventbus::log
