// What it is: a decoded change as an object in Debezium's envelope.
// Who calls it: the debezium format; wal, which makes events of the same changes.
// Never: writes anywhere but behind what the buffer holds.
#pragma once

#include "decoder/decoder.hpp"

namespace eventbus::decoder {

// What all changes of a transaction say of it.
struct Stamp {
    int64 transaction;   // the 64-bit id; 0: none
    int64 committed_at;  // ms; negative: not known yet
    int64 decoded_at;    // ms
};
Stamp make_stamp(const ReorderBufferTXN* txn, bool committed);
// The same for who has looked at the clock and the next transaction's id a moment ago.
Stamp make_stamp(const ReorderBufferTXN* txn, bool committed, FullTransactionId next, TimestampTz now);

// Fills in what the envelope needs of a plan.
void prepare_envelope(RelationPlan* plan, Relation published, const Options& options);

// Up to, and without, the closing brace.
void append_change(StringInfo out, const RelationPlan& plan, const Change& change, const Stamp& stamp);
void append_message(StringInfo out, const Options& options, XLogRecPtr lsn, const char* prefix, Size size,
                    const char* content, const Stamp& stamp);

// The row itself, as in "before" (the columns that the replica identity has) and "after".
void append_before(StringInfo out, const RelationPlan& plan, const Row& row);
void append_after(StringInfo out, const RelationPlan& plan, const Change& change);

}  // namespace eventbus::decoder
