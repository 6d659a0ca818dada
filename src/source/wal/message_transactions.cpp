// What it is: messages in the WAL: those of transactions with nothing else are kept here until they commit.
// Who calls it: the source, with each record, before PostgreSQL's decoder sees it.
// Never: lets PostgreSQL's decoder see a message of this database.
//
// PostgreSQL hands on a message with the LSN of its end, which is where the next record begins: it would have the id of
// that one's change, or of a transaction that commits there. So messages are queued here, with where they begin.
//
// An event published by publish_wal is a transaction of one message. For each one that the reorder buffer replays it
// begins and aborts a transaction of its own, to look into the catalog; messages need no catalog. Without that they are
// read as fast as the log is. The reorder buffer knows the transactions all the same, so that the slot's restart_lsn
// stays behind them, and takes the messages over as soon as a transaction changes a row, or holds many. A transaction
// and its subtransactions are one family in that: what is handed over late would stand behind what is streamed before.
#include <algorithm>

#include "source/wal/source_state.hpp"

extern "C" {
#include "access/rmgr.h"
#include "replication/decode.h"
#include "replication/message.h"
#include "replication/snapbuild.h"
#include "storage/standbydefs.h"
}

namespace eventbus::wal {

struct PendingMessage {
    PendingMessage* next;
    PendingMessage* previous;
    TransactionId xid;  // of the subtransaction
    XLogRecPtr lsn;
    Size prefix_size;
    Size size;
    char text[FLEXIBLE_ARRAY_MEMBER];  // the prefix, with its closing zero, and the content
};

namespace {

constexpr Size most_bytes = 256 * 1024;  // of one transaction with its subtransactions

// A transaction's messages, with those of its subtransactions, by their LSN. A subtransaction has an entry that only
// says whose it is: no record but its first one does.
struct Held {
    TransactionId xid;  // the hash key
    TransactionId top;
    PendingMessage* first;
    PendingMessage* last;
    Size bytes;
};

Size bytes_of(const PendingMessage* message) {
    return offsetof(PendingMessage, text) + message->prefix_size + message->size;
}

Held* find(Source* source, TransactionId xid) {
    if (hash_get_num_entries(source->held) == 0) return nullptr;
    return static_cast<Held*>(hash_search(source->held, &xid, HASH_FIND, nullptr));
}

// Where the messages of a transaction or subtransaction are kept; nullptr: nowhere.
Held* family_of(Source* source, TransactionId xid) {
    Held* held = find(source, xid);
    return held == nullptr || held->top == xid ? held : find(source, held->top);
}

Held* enter(Source* source, TransactionId xid, TransactionId top) {
    bool known;
    auto* held = static_cast<Held*>(hash_search(source->held, &xid, HASH_ENTER, &known));
    if (!known) *held = {xid, top, nullptr, nullptr, 0};
    return held;
}

void forget(Source* source, TransactionId xid) {
    Held* held = find(source, xid);
    if (held == nullptr) return;
    for (PendingMessage* message = held->first; message != nullptr;) {
        PendingMessage* next = message->next;
        pfree(message);
        message = next;
    }
    hash_search(source->held, &xid, HASH_REMOVE, nullptr);
}

// A subtransaction is rolled back. Those that began within it have later xids, and nobody else has published since.
void undo(Source* source, TransactionId sub) {
    Held* family = family_of(source, sub);
    if (family == nullptr) return;
    while (family->last != nullptr && !TransactionIdPrecedes(family->last->xid, sub)) {
        PendingMessage* message = family->last;
        family->last = message->previous;
        (family->last != nullptr ? family->last->next : family->first) = nullptr;
        family->bytes -= bytes_of(message);
        pfree(message);
    }
}

void queue(Source* source, TransactionId xid, XLogRecPtr lsn, const char* prefix, const char* content, Size size,
           XLogRecPtr now) {
    if (SnapBuildProcessChange(source->context->snapshot_builder, xid, now))
        ReorderBufferQueueMessage(source->context->reorder, xid, nullptr, lsn, true, prefix, size, content);
}

// The decoder takes over what the whole family has published.
void push(Source* source, TransactionId xid, XLogRecPtr now) {
    Held* family = family_of(source, xid);
    if (family == nullptr) return;
    for (PendingMessage* message = family->first; message != nullptr; message = message->next)
        queue(source, message->xid, message->lsn, message->text, message->text + message->prefix_size, message->size,
              now);
    forget(source, family->xid);
}

void keep(Source* source, Held* family, const xl_logical_message* record) {
    XLogReaderState* reader = source->context->reader;
    Size length = record->prefix_size + record->message_size;
    auto* message =
        static_cast<PendingMessage*>(MemoryContextAlloc(source->memory, offsetof(PendingMessage, text) + length));
    message->next = nullptr;
    message->previous = family->last;
    message->xid = XLogRecGetXid(reader);
    message->lsn = reader->ReadRecPtr;
    message->prefix_size = record->prefix_size;
    message->size = record->message_size;
    memcpy(message->text, record->message, length);
    (family->last != nullptr ? family->last->next : family->first) = message;
    family->last = message;
    family->bytes += bytes_of(message);
}

// A message of a transaction: kept, or queued where something else of the family is.
void hold(Source* source, const xl_logical_message* record) {
    XLogReaderState* reader = source->context->reader;
    TransactionId xid = XLogRecGetXid(reader);
    bool queued = ReorderBufferXidHasBaseSnapshot(source->context->reorder, xid);
    if (!queued) {
        const Held* known = find(source, xid);
        TransactionId top = known != nullptr ? known->top : xid;
        Held* family = enter(source, top, top);
        queued =
            family->bytes + offsetof(PendingMessage, text) + record->prefix_size + record->message_size > most_bytes;
        if (!queued) keep(source, family, record);
    }
    if (!queued) return;
    push(source, xid, reader->ReadRecPtr);
    queue(source, xid, reader->ReadRecPtr, record->message, record->message + record->prefix_size, record->message_size,
          reader->ReadRecPtr);
}

// What PostgreSQL's logicalmsg_decode does.
void take_message(Source* source) {
    XLogReaderState* reader = source->context->reader;
    SnapBuild* builder = source->context->snapshot_builder;
    TransactionId xid = XLogRecGetXid(reader);
    auto* record = reinterpret_cast<const xl_logical_message*>(XLogRecGetData(reader));
    if (TransactionIdIsValid(XLogRecGetTopXid(reader)))
        ReorderBufferAssignChild(source->context->reorder, XLogRecGetTopXid(reader), xid, reader->ReadRecPtr);
    ReorderBufferProcessXid(source->context->reorder, xid, reader->ReadRecPtr);
    if (SnapBuildCurrentState(builder) < SNAPBUILD_FULL_SNAPSHOT || record->dbId != MyDatabaseId) return;
    if (record->transactional)
        hold(source, record);
    else if (SnapBuildCurrentState(builder) == SNAPBUILD_CONSISTENT &&
             !SnapBuildXactNeedsSkip(builder, reader->ReadRecPtr))
        found_lone_message(source, reader->ReadRecPtr, record->message,
                           {record->message + record->prefix_size, record->message_size});
}

// A transaction and those of its subtransactions that were not rolled back.
struct Family {
    TransactionId top;
    TransactionId* subs;
    int sub_count;
    TransactionId member(int i) const { return i < sub_count ? subs[i] : top; }
};

void hand_over(Source* source, const Family& family, XLogRecPtr commit, TimestampTz committed_at) {
    int count = 0;
    int room = 0;
    PendingMessage** messages = nullptr;
    bool changes = false;
    for (int i = 0; i <= family.sub_count; ++i) {
        Held* held = find(source, family.member(i));
        changes = changes || ReorderBufferXidHasBaseSnapshot(source->context->reorder, family.member(i));
        for (PendingMessage* at = held != nullptr ? held->first : nullptr; at != nullptr; at = at->next) {
            if (count == room) {
                room = std::max(16, room * 2);
                Size bytes = sizeof(void*) * static_cast<Size>(room);
                messages =
                    static_cast<PendingMessage**>(messages == nullptr ? palloc(bytes) : repalloc(messages, bytes));
            }
            messages[count++] = at;
        }
    }
    if (changes) {
        for (int i = 0; i <= family.sub_count; ++i) push(source, family.member(i), commit);
        return;
    }
    if (count > 0 && !SnapBuildXactNeedsSkip(source->context->snapshot_builder, commit)) {
        std::sort(messages, messages + count, [](auto* a, auto* b) { return a->lsn < b->lsn; });
        begin_transaction(source, family.top, commit, committed_at);
        for (int i = 0; i < count; ++i)
            found_message(source, messages[i]->lsn, messages[i]->text,
                          {messages[i]->text + messages[i]->prefix_size, messages[i]->size});
    }
    for (int i = 0; i <= family.sub_count; ++i) forget(source, family.member(i));
}

// A transaction ends, one way or the other.
void end(Source* source) {
    XLogReaderState* reader = source->context->reader;
    uint8 info = XLogRecGetInfo(reader) & XLOG_XACT_OPMASK;
    if (info == XLOG_XACT_COMMIT || info == XLOG_XACT_COMMIT_PREPARED) {
        xl_xact_parsed_commit parsed;
        ParseCommitRecord(XLogRecGetInfo(reader), reinterpret_cast<xl_xact_commit*>(XLogRecGetData(reader)), &parsed);
        Family family = {info == XLOG_XACT_COMMIT ? XLogRecGetXid(reader) : parsed.twophase_xid, parsed.subxacts,
                         parsed.nsubxacts};
        hand_over(source, family, reader->ReadRecPtr, parsed.xact_time);
    } else if (info == XLOG_XACT_ABORT || info == XLOG_XACT_ABORT_PREPARED) {
        xl_xact_parsed_abort parsed;
        ParseAbortRecord(XLogRecGetInfo(reader), reinterpret_cast<xl_xact_abort*>(XLogRecGetData(reader)), &parsed);
        TransactionId xid = info == XLOG_XACT_ABORT ? XLogRecGetXid(reader) : parsed.twophase_xid;
        undo(source, xid);
        forget(source, xid);
        for (int i = 0; i < parsed.nsubxacts; ++i) forget(source, parsed.subxacts[i]);
    }
}

// What ended with a crash has left no other word.
void forget_before(Source* source, TransactionId oldest_running) {
    HASH_SEQ_STATUS scan;
    hash_seq_init(&scan, source->held);
    while (auto* held = static_cast<Held*>(hash_seq_search(&scan)))
        if (TransactionIdPrecedes(held->xid, oldest_running)) forget(source, held->xid);
}

}  // namespace

void make_message_transactions(Source* source) {
    HASHCTL control = {};
    control.keysize = sizeof(TransactionId);
    control.entrysize = sizeof(Held);
    control.hcxt = source->memory;
    source->held = hash_create("pg_eventbus held messages", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

bool hold_record(Source* source) {
    XLogReaderState* reader = source->context->reader;
    RmgrId manager = XLogRecGetRmid(reader);
    TransactionId xid = XLogRecGetXid(reader);
    TransactionId top = XLogRecGetTopXid(reader);
    if (TransactionIdIsValid(top) && !ReorderBufferXidHasBaseSnapshot(source->context->reorder, top))
        (void)enter(source, xid, top);
    if (manager == RM_LOGICALMSG_ID) {
        take_message(source);
        return true;
    }
    if (hash_get_num_entries(source->held) == 0) return false;
    if (manager == RM_XACT_ID) {
        end(source);
    } else if (is_running_xacts(reader)) {
        forget_before(source, reinterpret_cast<xl_running_xacts*>(XLogRecGetData(reader))->oldestRunningXid);
    } else if (TransactionIdIsValid(xid)) {
        push(source, xid, reader->ReadRecPtr);
    }
    return false;
}

}  // namespace eventbus::wal
