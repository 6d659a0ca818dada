// What it is: what a source consists of.
// Who calls it: source.cpp, which reads, and decode.cpp, which makes events.
// Never: is seen outside of this room.
#pragma once

#include "decoder/change_envelope.hpp"
#include "postgres/compat.hpp"
#include "source/wal/source.hpp"
#include "source/wal/spool.hpp"

extern "C" {
#include "access/rmgr.h"
#include "access/xact.h"
#include "access/xlogutils.h"
#include "lib/stringinfo.h"
#include "replication/logical.h"
#include "storage/standbydefs.h"
#include "utils/hsearch.h"
}

namespace eventbus::wal {

// Which change of a transaction was found last.
struct Counting {
    XLogRecPtr change;
    int64 in_record;
};

// A transaction too large for memory, that has not committed yet or is being handed on.
struct Streamed {
    TransactionId xid;  // the hash key
    Spool* spool;
    TransactionId* undone;  // subtransactions that were rolled back
    int undone_count;
    int undone_room;
    SpoolHead gap;   // changes that nobody takes, not written yet
    SpoolHead head;  // read, and not handed on yet,
    bool has_head;   // where there is one
    Counting counting;
};

struct Source {
    MemoryContext memory;
    MemoryContext scratch;  // emptied after each event
    MemoryContext reading;  // and this one after each step
    char slot[NAMEDATALEN];
    State state;
    char words[256];
    List* takers;
    Batch* batch;
    void (*leave_if_told)();
    List* shapes;         // of Shape*: what takers with the same selection have in common
    Failures* failures;   // the sender's
    Oid looked_at;        // the table whose change is being made an event, and may fail for it; InvalidOid: none
    int64 change;         // which one that is
    int64 giving;         // the change whose event is being given, or read to be given; 0: none
    XLogRecPtr decoding;  // the record that PostgreSQL decodes; invalid: none
    struct Made* made;    // what has become of it
    decoder::Stamp stamp;
    FullTransactionId next_xid;  // when this step began,
    TimestampTz now;             // and when that was
    int64 decoded_txns;          // in this step, for pg_stat_replication_slots
    int64 decoded_bytes;
    int most_room;                       // kB that the server lets decoding take
    StringInfoData payload;              // of the event that is being made
    const decoder::RelationPlan* table;  // whose change that is; nullptr: nothing is being made

    LogicalDecodingContext* context;
    void* plugins;  // the output plugin's own state in it
    ReadLocalXLogPageNoWaitPrivate end_of_wal;
    XLogRecPtr next;     // the next record
    XLogRecPtr flushed;  // the WAL is on disk up to there, at least
    bool waiting;        // the current one waits for transactions to end before it is decoded

    // The transaction that is decoded, or handed on from its spool.
    uint64 commit;
    TimestampTz committed_at;
    TimestampTz said_at;      // of a streamed one: the same, as its origin says
    bool is_timeless;         // committed_at is the time of reading
    bool replicated;          // its commit record has a replication origin
    TimestampTz last_commit;  // the same, of transactions alone
    int64 number;             // of its last change
    Counting counting;

    HTAB* held;  // messages of transactions that have nothing else, with subtransactions; see message_transactions.cpp
    HTAB* streamed;       // of Streamed
    Streamed* streaming;  // whose block is being decoded, or nullptr
    Streamed* handing;    // which has committed, and is being handed on, or nullptr

    // What one record has found beyond what is sent at once: a transaction that began before confirmed_flush_lsn is
    // decoded as a whole when it commits.
    Spool* overflow;      // or nullptr
    SpoolHead next_head;  // read from there,
    bool has_next_head;   // where there is one
    bool emptying;        // what comes from there is given
    Position given;       // the change that was given last,
    Position last_given;  // and the one that is in a batch

    TransactionId* unseen;  // transactions that were found and that somebody may not see yet
    int unseen_count;
    int unseen_room;
    Position found;  // everything before it is in the batches
};

// The last word of a change's topic.
inline constexpr const char* operation_words[decoder::operation_count] = {"insert", "update", "delete", "truncate"};

// What stands in an envelope for the time of a commit that is not known yet: as many digits.
inline constexpr int64 commit_not_known = 1000000000000;

// What kind of record has been read.
inline bool is_commit_prepared(XLogReaderState* reader) {
    return XLogRecGetRmid(reader) == RM_XACT_ID &&
           (XLogRecGetInfo(reader) & XLOG_XACT_OPMASK) == XLOG_XACT_COMMIT_PREPARED;
}
inline bool is_commit(XLogReaderState* reader) {
    return is_commit_prepared(reader) ||
           (XLogRecGetRmid(reader) == RM_XACT_ID && (XLogRecGetInfo(reader) & XLOG_XACT_OPMASK) == XLOG_XACT_COMMIT);
}
inline bool is_running_xacts(XLogReaderState* reader) {
    return XLogRecGetRmid(reader) == RM_STANDBY_ID && (XLogRecGetInfo(reader) & ~XLR_INFO_MASK) == XLOG_RUNNING_XACTS;
}

// decode.cpp: the output plugin's callbacks.
// What is found next belongs to a transaction that commits there.
void begin_transaction(Source* source, TransactionId xid, uint64 commit, TimestampTz committed_at);
void found_message(Source* source, XLogRecPtr lsn, const char* prefix, std::string_view content);
// One that is no transaction's.
void found_lone_message(Source* source, XLogRecPtr lsn, const char* prefix, std::string_view content);
void make_row_events(Source* source);
void read_selection(const Selection& selection, decoder::Options* options);
void take_callbacks(Source* source);
void forget_streamed(Source* source, Streamed* streamed);
// Gives the taker with that number the event, which is numbered, unless it is the taker's already, or no matter of the
// taker's for its transaction's origin, which a streamed one shows at its end.
void give(Source* source, int taker, const Event& event);

// failed_changes.cpp: makes a change of a row an event for each shape, and gives it to the takers.
// replicated: its record has a replication origin, whatever that of the commit has.
void show_change(Source* source, XLogRecPtr lsn, Relation relation, decoder::Operation operation, bool replicated,
                 void (*show)(void*), void* argument);
// It is an event, or none, or an error has ended it.
void forget_change(Source* source);
// Gives every taker word of a transaction that PostgreSQL cannot decode.
void give_up_transaction(Source* source, XLogRecPtr commit);

// message_transactions.cpp: true where the record that has been read is a message: PostgreSQL's decoder need not see
// it.
void make_message_transactions(Source* source);
bool hold_record(Source* source);

}  // namespace eventbus::wal
