// What it is: events in temporary files: written at their end, read from their beginning, and gone once read.
// Who calls it: queues that outgrow memory; large transactions that have not committed yet.
// Never: survives its process; what is in it can be decoded again.
#pragma once

#include "core/event.hpp"
#include "source/wal/wal_chunk.hpp"

namespace eventbus::wal {

// What stands before each event.
struct SpoolHead {
    TransactionId xid;  // of the subtransaction that made the change, where it may still be rolled back
    int32 taker;        // who takes the event; nobody: `count` changes that nobody takes
    int64 count;
    bool same_change;  // as the event before
    int64 change;      // that became the event
    bool stamped;      // the payload says when it was committed, which was not known when it was made
};
inline constexpr int32 nobody = -1;

struct Spool;

Spool* make_spool(MemoryContext memory);
void free_spool(Spool* spool);
void write_event(Spool* spool, const SpoolHead& head, const Event& event);
void write_gap(Spool* spool, const SpoolHead& head);
// What has been written by now may be read.
void release(Spool* spool);
// What has been written since is forgotten, also after an error in writing.
void take_back(Spool* spool);
// Nothing is left that may be read, or that has been written.
bool is_read(const Spool* spool);
bool is_empty(const Spool* spool);
// The next head, if there is one that may be read; then either the event, copied into the chunk's memory, or nothing.
bool read_head(Spool* spool, SpoolHead* head);
Event read_event(Spool* spool, Chunk* chunk);
void skip_event(Spool* spool);

}  // namespace eventbus::wal
