// What it is: cursors that stand at different places, read together: where to begin, and what each had settled before.
// Who calls it: the sender, for routes that share a stream.
// Never: takes for settled what a cursor does not say.
#pragma once

#include "source/log/reader.hpp"

namespace eventbus::log {

// Whether the cursor has settled (or is not to have) the event of this transaction, place and id; the place is one in
// the segment's file, which may be another than the cursor knew.
bool settles(const Cursor& cursor, uint64 xid, const Position& at, const EventId& id, uint32 file);
// All that `other` has settled, `cursor` has; what its creator published is not looked at.
bool covers(const Cursor& cursor, const Cursor& other);
// A place that all of the cursors cover, and no earlier than it must be; it has no creator. Allocated in `memory`.
Cursor meet(const Cursor* const* cursors, int count, MemoryContext memory);
// The cursor of who had settled `from` and has settled what lies before `place` since then. Where no cursor says just
// that it is `from` itself: too little, never too much. Holds what the two hold.
Cursor behind_both(const Cursor& from, const Cursor& place);

Cursor copy_cursor(const Cursor& cursor, MemoryContext memory);
void free_cursor(Cursor* cursor);

}  // namespace eventbus::log
