// What it is: which transactions have finished at a moment, kept as data across transactions and restarts.
// Who calls it: the reader (a batch is what one of these sees and an earlier one did not), cursors, the keeper.
// Never: holds back vacuum; it is only numbers.
#pragma once

#include "postgres/prelude.hpp"

namespace eventbus::log {

struct XidSnapshot {
    uint64 xmin = 0;  // every transaction before it has finished
    uint64 xmax = 0;  // every transaction from it on has not
    int count = 0;
    uint64* running = nullptr;  // those between that have not finished, ascending
};

bool finished(const XidSnapshot& snapshot, uint64 xid);
bool same(const XidSnapshot& a, const XidSnapshot& b);
bool is_later(const XidSnapshot& a, const XidSnapshot& b);  // a was taken after b, and not all is as it was

// What PostgreSQL's snapshot says, allocated in `memory`. Top-level transactions only.
XidSnapshot take_snapshot(const SnapshotData* snapshot, MemoryContext memory);
// Adds a transaction to those that have not finished: a snapshot leaves out its own.
void add_running(XidSnapshot* snapshot, uint64 xid, MemoryContext memory);
XidSnapshot copy_snapshot(const XidSnapshot& snapshot, MemoryContext memory);
void free_snapshot(XidSnapshot* snapshot);

// The text form of the type pg_snapshot.
char* snapshot_to_text(const XidSnapshot& snapshot);
XidSnapshot snapshot_from_text(const char* text, MemoryContext memory);

}  // namespace eventbus::log
