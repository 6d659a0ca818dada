// What it is: transactions with nothing in them but messages, kept here until they commit.
// Who calls it: the source, with each record, before PostgreSQL's decoder sees it.
// Never: keeps a message that the decoder would have to put between a transaction's changes: those are given to it.
//
// An event published by publish_wal is a transaction of one message. For each one that the reorder buffer replays it
// begins and aborts a transaction of its own, to look into the catalog; messages need no catalog. Without that they are
// read as fast as the log is. The reorder buffer knows the transactions all the same, so that the slot's restart_lsn
// stays behind them, and takes the messages over as soon as a transaction changes a row, or holds many.
#include <algorithm>

#include "wal/source_state.hpp"

extern "C" {
#include "access/rmgr.h"
#include "replication/decode.h"
#include "replication/message.h"
#include "replication/snapbuild.h"
#include "storage/standbydefs.h"
}

namespace eventbus::wal {

struct HeldMessage {
    HeldMessage* next;
    XLogRecPtr lsn;
    Size prefix_size;
    Size size;
    char text[FLEXIBLE_ARRAY_MEMBER];  // the prefix, with its closing zero, and the content
};

namespace {

constexpr Size most_bytes = 256 * 1024;  // of one transaction

struct Held {
    TransactionId xid;  // the hash key; of a subtransaction its own
    HeldMessage* first;
    HeldMessage* last;
    Size bytes;
};

Held* find(Source* source, TransactionId xid) {
    if (hash_get_num_entries(source->held) == 0) return nullptr;
    return static_cast<Held*>(hash_search(source->held, &xid, HASH_FIND, nullptr));
}

void forget(Source* source, TransactionId xid) {
    Held* held = find(source, xid);
    if (held == nullptr) return;
    for (HeldMessage* message = held->first; message != nullptr;) {
        HeldMessage* next = message->next;
        pfree(message);
        message = next;
    }
    hash_search(source->held, &xid, HASH_REMOVE, nullptr);
}

// The decoder takes them over.
void push(Source* source, TransactionId xid, XLogRecPtr now) {
    Held* held = find(source, xid);
    if (held == nullptr) return;
    if (SnapBuildProcessChange(source->context->snapshot_builder, xid, now))
        for (HeldMessage* message = held->first; message != nullptr; message = message->next)
            ReorderBufferQueueMessage(source->context->reorder, xid, nullptr, message->lsn, true, message->text,
                                      message->size, message->text + message->prefix_size);
    forget(source, xid);
}

// True where the message is kept; the decoder need not see its record.
bool hold(Source* source) {
    XLogReaderState* reader = source->context->reader;
    ReorderBuffer* buffer = source->context->reorder;
    auto* record = reinterpret_cast<xl_logical_message*>(XLogRecGetData(reader));
    TransactionId xid = XLogRecGetXid(reader);
    if (record->dbId != MyDatabaseId || !record->transactional) return false;
    if (TransactionIdIsValid(XLogRecGetTopXid(reader)))
        ReorderBufferAssignChild(buffer, XLogRecGetTopXid(reader), xid, reader->ReadRecPtr);
    ReorderBufferProcessXid(buffer, xid, reader->ReadRecPtr);
    if (ReorderBufferXidHasBaseSnapshot(buffer, xid)) {
        push(source, xid, reader->ReadRecPtr);
        return false;
    }
    bool known;
    auto* held = static_cast<Held*>(hash_search(source->held, &xid, HASH_ENTER, &known));
    if (!known) {
        held->first = held->last = nullptr;
        held->bytes = 0;
    }
    Size bytes = offsetof(HeldMessage, text) + record->prefix_size + record->message_size;
    if (held->bytes + bytes > most_bytes) {
        if (!known)
            hash_search(source->held, &xid, HASH_REMOVE, nullptr);
        else
            push(source, xid, reader->ReadRecPtr);
        return false;
    }
    auto* message = static_cast<HeldMessage*>(MemoryContextAlloc(source->memory, bytes));
    message->next = nullptr;
    message->lsn = reader->ReadRecPtr;
    message->prefix_size = record->prefix_size;
    message->size = record->message_size;
    memcpy(message->text, record->message, record->prefix_size + record->message_size);
    (held->last != nullptr ? held->last->next : held->first) = message;
    held->last = message;
    held->bytes += bytes;
    return true;
}

// A transaction and its subtransactions.
struct Family {
    TransactionId top;
    TransactionId* subs;
    int sub_count;
    TransactionId member(int i) const { return i < sub_count ? subs[i] : top; }
};

void hand_over(Source* source, const Family& family, XLogRecPtr commit, TimestampTz committed_at) {
    int count = 0;
    int room = 0;
    HeldMessage** messages = nullptr;
    bool changes = false;
    for (int i = 0; i <= family.sub_count; ++i) {
        Held* held = find(source, family.member(i));
        changes = changes || ReorderBufferXidHasBaseSnapshot(source->context->reorder, family.member(i));
        for (HeldMessage* at = held != nullptr ? held->first : nullptr; at != nullptr; at = at->next) {
            if (count == room) {
                room = std::max(16, room * 2);
                Size bytes = sizeof(void*) * static_cast<Size>(room);
                messages = static_cast<HeldMessage**>(messages == nullptr ? palloc(bytes) : repalloc(messages, bytes));
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
        bool replicated = (parsed.xinfo & XACT_XINFO_HAS_ORIGIN) != 0;
        hand_over(source, family, reader->ReadRecPtr, replicated ? parsed.origin_timestamp : parsed.xact_time);
    } else if (info == XLOG_XACT_ABORT || info == XLOG_XACT_ABORT_PREPARED) {
        xl_xact_parsed_abort parsed;
        ParseAbortRecord(XLogRecGetInfo(reader), reinterpret_cast<xl_xact_abort*>(XLogRecGetData(reader)), &parsed);
        forget(source, info == XLOG_XACT_ABORT ? XLogRecGetXid(reader) : parsed.twophase_xid);
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

void make_held(Source* source) {
    HASHCTL control = {};
    control.keysize = sizeof(TransactionId);
    control.entrysize = sizeof(Held);
    control.hcxt = source->memory;
    source->held = hash_create("pg_eventbus held messages", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

bool hold_record(Source* source) {
    XLogReaderState* reader = source->context->reader;
    RmgrId manager = XLogRecGetRmid(reader);
    if (manager == RM_LOGICALMSG_ID) return hold(source);
    if (hash_get_num_entries(source->held) == 0) return false;
    if (manager == RM_XACT_ID) {
        end(source);
    } else if (manager == RM_STANDBY_ID) {
        if ((XLogRecGetInfo(reader) & ~XLR_INFO_MASK) == XLOG_RUNNING_XACTS)
            forget_before(source, reinterpret_cast<xl_running_xacts*>(XLogRecGetData(reader))->oldestRunningXid);
    } else if (TransactionIdIsValid(XLogRecGetXid(reader))) {
        push(source, XLogRecGetXid(reader), reader->ReadRecPtr);
    }
    return false;
}

}  // namespace eventbus::wal
