// What it is: the state of one decoding context, and what a format has to answer.
// Who calls it: the plugin's callbacks, and the formats.
// Never: knows who reads the output.
#pragma once

#include "decoder/plan.hpp"

extern "C" {
#include "replication/logical.h"
}

namespace eventbus::decoder {

struct Decoder;

// A change as it goes out: row filters may have made another operation of it.
struct Change {
    Operation operation;
    const Row* before;  // what the replica identity holds of it; nullptr: nothing
    const Row* after;
    XLogRecPtr lsn;
    TransactionId sub;  // in blocks of unfinished transactions: the subtransaction, or the transaction itself
};

// What is written between begin and commit, in the words of a format. All are called in the context's transaction.
struct Format {
    PreparePlan prepare;
    void (*start)(Decoder* decoder, ReorderBufferTXN* txn);  // before anything of a transaction; may be nullptr
    void (*begin)(Decoder* decoder, ReorderBufferTXN* txn);
    void (*commit)(Decoder* decoder, ReorderBufferTXN* txn, XLogRecPtr lsn);
    void (*change)(Decoder* decoder, ReorderBufferTXN* txn, RelationPlan* plan, const Change& change);
    void (*truncate)(Decoder* decoder, ReorderBufferTXN* txn, RelationPlan* plan, const Change& change);
    void (*message)(Decoder* decoder, ReorderBufferTXN* txn, XLogRecPtr lsn, bool transactional, const char* prefix,
                    Size size, const char* content);
};

// What a transaction has written so far.
struct Progress {
    bool begun;  // its beginning stands in the output
    uint64 changes;
};

struct Decoder {
    LogicalDecodingContext* context;
    MemoryContext memory;   // as long as the decoding context
    MemoryContext scratch;  // emptied after each change
    Options options;
    const Format* format;
    Plans* plans;
    bool shows_empty;     // a transaction without changes has a BEGIN and a COMMIT, too
    Progress progress;    // of the transaction that is being decoded
    Progress* streamed;   // of the transaction whose block is being streamed; nullptr outside of blocks
    struct Stamp* stamp;  // debezium
};

extern const Format debezium_format;
extern const Format wal2json_format_1;
extern const Format wal2json_format_2;

inline StringInfo output_of(Decoder* decoder) {
    return decoder->context->out;
}

// One record for the client; what comes between the two stands in the output.
void begin_record(Decoder* decoder);
void end_record(Decoder* decoder);

// The transaction's beginning is written with its first change where empty transactions are left out.
void ensure_begun(Decoder* decoder, ReorderBufferTXN* txn);

}  // namespace eventbus::decoder
