#include "source/wal/source.hpp"

#include <algorithm>
#include <utility>

#include "postgres/steady.hpp"
#include "postgres/wal_end.hpp"
#include "source/wal/slot.hpp"
#include "source/wal/source_state.hpp"

extern "C" {
#include "access/transam.h"
#include "replication/decode.h"
#include "replication/slot.h"
#include "replication/snapbuild.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
}

namespace eventbus::wal {

namespace {

constexpr int64 step_us = 1000;               // no longer: the broker would run out of work meanwhile
constexpr uint32 records_between_looks = 32;  // at the clock
constexpr int small_room = 2048;              // kB of what is collected before it is handed on in parts, or spilled

XLogReaderRoutine routine() {
    XLogReaderRoutine made = {};
    made.page_read = read_local_xlog_page_no_wait;
    made.segment_open = wal_segment_open;
    made.segment_close = wal_segment_close;
    return made;
}

void begin_reading(Source* source) {
    source->context->reader->private_data = &source->end_of_wal;
    source->next = MyReplicationSlot->data.restart_lsn;
    XLogBeginRead(source->context->reader, source->next);
}

void start_slot(Source* source) {
    compat::create_logical_slot(source->slot);
    XLogReaderRoutine callbacks = routine();
    MemoryContextSwitchTo(source->memory);  // in which the context is made
    source->context =
        CreateInitDecodingContext(plugin, NIL, false, InvalidXLogRecPtr, &callbacks, nullptr, nullptr, nullptr);
    source->state = State::starting;
    begin_reading(source);
}

void start_decoding(Source* source) {
    XLogReaderRoutine callbacks = routine();
    MemoryContextSwitchTo(source->memory);
    source->context = CreateDecodingContext(InvalidXLogRecPtr, NIL, false, &callbacks, nullptr, nullptr, nullptr);
    take_callbacks(source);
    source->state = State::running;
    source->found = {MyReplicationSlot->data.confirmed_flush, 0};
    begin_reading(source);
}

// The next record, unless that has not been written and flushed as a whole yet.
bool read_record(Source* source) {
    XLogReaderState* reader = source->context->reader;
    if (source->next >= source->flushed) source->flushed = GetFlushRecPtr(nullptr);
    if (source->next >= source->flushed) return false;
    char* error = nullptr;
    source->end_of_wal.end_of_wal = false;
    MemoryContext before = MemoryContextSwitchTo(source->memory);  // where the reader's buffers shall be
    bool read = XLogReadRecord(reader, &error) != nullptr;
    MemoryContextSwitchTo(before);
    if (!read) {
        if (!source->end_of_wal.end_of_wal)
            elog(ERROR, "could not read WAL at %s: %s", lsn_text(source->next), error != nullptr ? error : "no record");
        XLogBeginRead(reader, source->next);
        return false;
    }
    source->next = reader->EndRecPtr;
    return true;
}

// PostgreSQL would wait, within its decoder, for the transactions that run at the record where a slot begins, and once
// more for those that run at the next one where it gets further (snapbuild.c: a snapshot is built, then full). Here the
// record waits. Those of records in between run at that next one, too, where they have not ended by then. From a full
// snapshot to a consistent one nobody waits. Returns the first of them that has not ended.
TransactionId awaited(Source* source) {
    XLogReaderState* reader = source->context->reader;
    if (SnapBuildCurrentState(source->context->snapshot_builder) >= SNAPBUILD_FULL_SNAPSHOT ||
        !is_running_xacts(reader))
        return InvalidTransactionId;
    auto* running = reinterpret_cast<xl_running_xacts*>(XLogRecGetData(reader));
    for (int i = 0; i < running->xcnt; ++i)
        if (TransactionIdIsInProgress(running->xids[i])) return running->xids[i];
    return InvalidTransactionId;
}

void say_awaited(Source* source, TransactionId xid) {
    int pid = BackendXidGetPid(xid);
    snprintf(source->words, sizeof source->words, "the replication slot waits for transaction %u (%s) to end", xid,
             pid != 0 ? psprintf("process %d", pid) : "prepared");
}

void finish_slot(Source* source) {
    ReplicationSlot* slot = MyReplicationSlot;
    SpinLockAcquire(&slot->mutex);
    slot->data.confirmed_flush = source->context->reader->EndRecPtr;
    SpinLockRelease(&slot->mutex);
    ReplicationSlotPersist();
    FreeDecodingContext(source->context);
    source->context = nullptr;
    source->words[0] = '\0';
    start_decoding(source);
}

void set_room(int kilobytes) {
    char text[16];
    snprintf(text, sizeof text, "%dkB", kilobytes);
    SetConfigOption("logical_decoding_work_mem", text, PGC_SUSET, PGC_S_OVERRIDE);
}

// Before the record at hand is decoded. When all that is collected exceeds the limit, PostgreSQL writes the largest
// transaction into a file, and each of its subtransactions into one of its own, in one stroke. Where they are small,
// because there are many, that is a file for almost each change from then on: they get more memory before that.
void give_room(Source* source) {
    constexpr Size worth_a_file = 8 * 1024;
    const ReorderBuffer* collected = source->context->reorder;
    const Size to_come = collected->size + XLogRecGetTotalLen(source->context->reader);
    auto room = [] { return static_cast<Size>(logical_decoding_work_mem) * 1024; };
    if (to_come < small_room * Size{256} && logical_decoding_work_mem > small_room) set_room(small_room);
    if (2 * to_come < room() || logical_decoding_work_mem >= source->most_room) return;
    const auto transactions = static_cast<Size>(hash_get_num_entries(collected->by_txn));
    if (transactions < collected->size / worth_a_file) return;
    while (2 * to_come >= room() && logical_decoding_work_mem < source->most_room)
        set_room(std::min(2 * logical_decoding_work_mem, source->most_room));
}

// One record of the time before the slot is complete; false where there is none for now.
bool step_starting(Source* source) {
    if (!source->waiting && !read_record(source)) return false;
    TransactionId xid = awaited(source);
    source->waiting = TransactionIdIsValid(xid);
    if (source->waiting) {
        say_awaited(source, xid);
        return false;
    }
    give_room(source);
    LogicalDecodingProcessRecord(source->context, source->context->reader);
    if (DecodingContextReady(source->context)) finish_slot(source);
    return true;
}

// A prepared transaction that was running where decoding began may have changed the catalog before that: its commit
// says so.
void note_prepared(const Source* source) {
    XLogReaderState* reader = source->context->reader;
    if (compat::snapshots_know_prepared || !is_commit_prepared(reader) ||
        SnapBuildCurrentState(source->context->snapshot_builder) < SNAPBUILD_FULL_SNAPSHOT)
        return;
    xl_xact_parsed_commit parsed;
    ParseCommitRecord(XLogRecGetInfo(reader), reinterpret_cast<xl_xact_commit*>(XLogRecGetData(reader)), &parsed);
    if ((parsed.xinfo & XACT_XINFO_HAS_INVALS) == 0) return;
    ReorderBuffer* collected = source->context->reorder;
    const XLogRecPtr at = reader->ReadRecPtr;
    ReorderBufferXidSetCatalogChanges(collected, parsed.twophase_xid, at);
    for (int i = 0; i < parsed.nsubxacts; ++i) {
        ReorderBufferAssignChild(collected, parsed.twophase_xid, parsed.subxacts[i], at);
        ReorderBufferXidSetCatalogChanges(collected, parsed.subxacts[i], at);
    }
}

// A transaction that PostgreSQL has failed to decode again and again is passed over, and every taker gets word of it.
void decode_record(Source* source) {
    XLogReaderState* reader = source->context->reader;
    bool give_up = source->failures->given_up == reader->ReadRecPtr;
    source->decoding = reader->ReadRecPtr;
    note_prepared(source);
    source->context->fast_forward = give_up;  // it forgets what commits here, and knows what that did to the catalog
    LogicalDecodingProcessRecord(source->context, reader);
    source->context->fast_forward = false;
    source->decoding = InvalidXLogRecPtr;
    if (give_up) give_up_transaction(source, reader->ReadRecPtr);
}

bool is_undone(const Streamed* streamed) {
    return TransactionIdIsValid(streamed->head.xid) &&
           std::binary_search(streamed->undone, streamed->undone + streamed->undone_count, streamed->head.xid);
}

// Puts the time of the commit into an envelope that was made before it, in as many characters; before 1970 there is
// none, as in append_stamp(). What is looked for stands behind all values.
void stamp(std::string_view payload, TimestampTz committed_at) {
    constexpr int64 too_long = 10 * commit_not_known;
    char blank[64];
    char known[64];
    const auto length =
        static_cast<Size>(snprintf(blank, sizeof blank, "\"ts_ms\":" INT64_FORMAT ",\"lsn\":", commit_not_known));
    const int64 ms = TIMESTAMP_NOT_FINITE(committed_at) ? -1 : to_unix_us(committed_at) / 1000;
    snprintf(known, sizeof known,
             "\"ts_ms\":%13s,\"lsn\":", ms >= 0 && ms < too_long ? psprintf(INT64_FORMAT, ms) : "null");
    Size at = payload.rfind({blank, length});
    if (at != std::string_view::npos) memcpy(const_cast<char*>(payload.data()) + at, known, length);
}

// Hands on a large transaction that has committed, whole changes at a time; false when that is done.
bool hand_on_streamed(Source* source, Size bytes, SteadyTime until) {
    Streamed* streamed = source->handing;
    Chunk* passing = make_chunk(source->reading);
    for (uint32 looks = 0;; ++looks) {
        if (!streamed->has_head) streamed->has_head = read_head(streamed->spool, &streamed->head);
        if (!streamed->has_head) break;
        if (!streamed->head.same_change && (passing->bytes > bytes || source->batch->length >= bytes ||
                                            (looks % records_between_looks == 0 && steady_now() > until))) {
            source->found = {source->commit, source->number};
            return true;
        }
        streamed->has_head = false;
        if (streamed->head.taker == nobody) {
            if (!is_undone(streamed)) source->number += streamed->head.count;
            continue;
        }
        if (is_undone(streamed)) {
            skip_event(streamed->spool);
            continue;
        }
        if (!streamed->head.same_change) ++source->number;
        source->giving = streamed->head.change;
        Event event = read_event(streamed->spool, passing);
        event.id = {source->commit, source->number};
        if (streamed->head.stamped) stamp(event.payload, source->said_at);
        if (event.published_at == 0) event.published_at = to_unix_us(source->committed_at);
        give(source, streamed->head.taker, event);
        source->giving = 0;
    }
    forget_streamed(source, streamed);
    source->handing = nullptr;
    source->found = {source->next, 0};
    return false;
}

// The same for what one record has found; false when all of it has been handed on.
bool hand_on_overflow(Source* source, Size bytes, SteadyTime until) {
    Chunk* passing = make_chunk(source->reading);
    source->emptying = true;
    for (uint32 looks = 0;; ++looks) {
        if (!source->has_next_head) source->has_next_head = read_head(source->overflow, &source->next_head);
        if (!source->has_next_head) break;
        if (!source->next_head.same_change && (passing->bytes > bytes || source->batch->length >= bytes ||
                                               (looks % records_between_looks == 0 && steady_now() > until))) {
            source->emptying = false;
            source->found = source->last_given;
            return true;
        }
        source->has_next_head = false;
        source->giving = source->next_head.change;
        Event event = read_event(source->overflow, passing);
        give(source, source->next_head.taker, event);
        source->giving = 0;
    }
    source->emptying = false;
    free_spool(source->overflow);
    source->overflow = nullptr;
    source->found = {source->next, 0};
    return false;
}

// The reader's buffer for records that lie on several pages grows with the largest; a record that has been read has
// been copied out of it.
void let_go_of_large_record(XLogReaderState* reader) {
    constexpr uint32 most_kept = 1024 * 1024;
    constexpr uint32 first_room = 5 * XLOG_BLCKSZ;  // XLogReaderAllocate()'s; it takes for granted that a page fits in
    if (reader->readRecordBufSize <= most_kept) return;
    MemoryContext memory = GetMemoryChunkContext(reader->readRecordBuf);
    pfree(reader->readRecordBuf);
    reader->readRecordBuf = static_cast<char*>(MemoryContextAlloc(memory, first_room));
    reader->readRecordBufSize = first_room;
}

void tell_statistics(Source* source) {
    if (source->decoded_txns == 0) return;
    source->context->reorder->totalTxns += std::exchange(source->decoded_txns, 0);
    source->context->reorder->totalBytes += std::exchange(source->decoded_bytes, 0);
    UpdateDecodingStats(source->context);
}

}  // namespace

Source* open_source(const char* slot, bool exists, List* takers, Failures* failures, Batch* batch, MemoryContext memory,
                    void (*leave_if_told)()) {
    MemoryContext own = AllocSetContextCreate(memory, "pg_eventbus source", ALLOCSET_DEFAULT_SIZES);
    auto* source = static_cast<Source*>(MemoryContextAllocZero(own, sizeof(Source)));
    source->memory = own;
    source->scratch = AllocSetContextCreate(own, "pg_eventbus decoded change", ALLOCSET_DEFAULT_SIZES);
    source->reading = AllocSetContextCreate(own, "pg_eventbus reading WAL", ALLOCSET_DEFAULT_SIZES);
    strlcpy(source->slot, slot, sizeof source->slot);
    MemoryContext before = MemoryContextSwitchTo(own);
    source->takers = takers;
    source->batch = batch;
    source->leave_if_told = leave_if_told;
    source->most_room = std::max(logical_decoding_work_mem, small_room);
    set_room(small_room);
    source->failures = failures;
    HASHCTL control = {};
    control.keysize = sizeof(TransactionId);
    control.entrysize = sizeof(Streamed);
    control.hcxt = own;
    source->streamed =
        hash_create("pg_eventbus large transactions", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
    make_row_events(source);
    make_message_transactions(source);
    CheckLogicalDecodingRequirements();
    if (exists) {
        compat::acquire_slot(slot);
        start_decoding(source);
    } else {
        start_slot(source);
    }
    MemoryContextSwitchTo(before);
    return source;
}

State state_of(const Source* source) {
    return source->state;
}

const char* words_of(const Source* source) {
    return source->words;
}

bool step(Source* source, Size bytes) {
    source->now = GetCurrentTimestamp();
    source->next_xid = ReadNextFullTransactionId();
    SteadyTime until = steady_now() + step_us;
    bool more = true;
    for (uint32 records = 1; more; ++records) {
        CHECK_FOR_INTERRUPTS();
        // Decoding leaves us in whatever context its transaction ended in.
        MemoryContextSwitchTo(source->reading);
        if (source->state == State::starting) {
            more = step_starting(source);
        } else if (source->handing != nullptr) {
            if (hand_on_streamed(source, bytes, until)) break;
        } else if (source->overflow != nullptr) {
            if (source->batch->length >= bytes || hand_on_overflow(source, bytes, until)) break;
        } else if (source->batch->length >= bytes) {
            break;
        } else if (!read_record(source)) {
            more = false;
        } else {
            give_room(source);
            if (!hold_record(source)) decode_record(source);
            if (source->overflow != nullptr)
                release(source->overflow);
            else if (source->handing == nullptr)
                source->found =
                    std::max(source->found, Position{source->next, 0});  // it begins before what is confirmed
        }
        if (records % records_between_looks == 0 && steady_now() > until) break;
    }
    tell_statistics(source);
    let_go_of_large_record(source->context->reader);
    MemoryContextSwitchTo(source->memory);
    MemoryContextReset(source->reading);
    return more;
}

XLogRecPtr read_by_now(const Source* source) {
    return source->next;
}

bool is_handing_on(const Source* source) {
    return source->handing != nullptr || source->overflow != nullptr;
}

char* failed_table(const Source* source) {
    return source->table == nullptr ? nullptr : psprintf("%s.%s", source->table->schema, source->table->table);
}

void look_at_place(XLogRecPtr* from, XLogRecPtr* next) {
    *from = MyReplicationSlot->data.restart_lsn;
    *next = MyReplicationSlot->candidate_restart_valid;
}

Position found_by_now(const Source* source) {
    return source->found;
}

TimestampTz committed_by_now(const Source* source) {
    return source->last_commit;
}

bool has_unseen(const Source* source) {
    return source->unseen_count > 0;
}

bool all_is_visible(Source* source) {
    Snapshot snapshot = GetActiveSnapshot();
    for (int i = 0; i < source->unseen_count; ++i) {
        if (!XidInMVCCSnapshot(source->unseen[i], snapshot)) continue;
        // Those before it need not be asked again.
        source->unseen_count -= i;
        memmove(source->unseen, source->unseen + i, sizeof(TransactionId) * static_cast<Size>(source->unseen_count));
        return false;
    }
    source->unseen_count = 0;
    return true;
}

TransactionId first_unseen(const Source* source) {
    return source->unseen_count > 0 ? source->unseen[0] : InvalidTransactionId;
}

XLogRecPtr confirm(const Source* source, XLogRecPtr lsn) {
    if (source->state == State::running && lsn > MyReplicationSlot->data.confirmed_flush)
        LogicalConfirmReceivedLocation(lsn);
    return MyReplicationSlot->data.confirmed_flush;
}

}  // namespace eventbus::wal
