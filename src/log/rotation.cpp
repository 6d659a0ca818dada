// What it is: see rotation.hpp.
// Who calls it: the keeper.
// Never: takes a segment's lock unless it is free: publishers hold theirs to the end of their transactions.
#include "log/rotation.hpp"

#include "log/cursors.hpp"
#include "log/tuple.hpp"
#include "postgres/compat.hpp"
#include "postgres/query.hpp"
#include "settings/settings.hpp"

extern "C" {
#include "access/transam.h"
}

namespace eventbus::log {

namespace {

struct Seen {  // how far a segment was looked at
    uint32 file;
    BlockNumber blocks;
    OffsetNumber last_offset;  // on the last page
};

struct Cursors {
    XidSnapshot* done;
    int count;
};

Cursors load_done() {
    run_query(
        "SELECT coalesce(c.done::text, '1:1:') FROM eventbus.route_config r LEFT JOIN eventbus.cursor c ON c.route_id "
        "= r.id",
        {}, true);
    Cursors cursors;
    cursors.count = 0;
    cursors.done = static_cast<XidSnapshot*>(palloc0(sizeof(XidSnapshot) * (SPI_processed + 1)));
    for (uint64 row = 0; row < SPI_processed; ++row) {
        XidSnapshot done = snapshot_from_text(text_at(row, 1), CurrentMemoryContext);
        bool known = false;  // routes that go along together are checked once
        for (int i = 0; !known && i < cursors.count; ++i) known = same(cursors.done[i], done);
        if (!known) cursors.done[cursors.count++] = done;
    }
    return cursors;
}

int32 newest_route() {
    run_query("SELECT coalesce(max(id), 0) FROM eventbus.route_config");  // sees what is committed by now
    return int4_at(0, 1);
}

// Whether every event of the segment is behind all cursors and older than eventbus.retention. Transactions that
// are still running are not behind `now`, whoever reads the log.
bool is_passed(Relation rel, const Cursors& cursors, const XidSnapshot& now, Seen* seen) {
    seen->file = compat::relation_file(rel);
    seen->blocks = RelationGetNumberOfBlocks(rel);
    seen->last_offset = InvalidOffsetNumber;
    TimestampTz keep_from = GetCurrentTimestamp() - static_cast<int64>(settings::retention) * USECS_PER_SEC;
    BufferAccessStrategy ring = GetAccessStrategy(BAS_BULKREAD);
    uint64 passed_xid = 0;
    // From the last page backwards: what is not passed yet is most likely there.
    for (BlockNumber left = seen->blocks; left > 0; --left) {
        CHECK_FOR_INTERRUPTS();
        Buffer buffer = ReadBufferExtended(rel, MAIN_FORKNUM, left - 1, RBM_NORMAL, ring);
        LockBuffer(buffer, BUFFER_LOCK_SHARE);
        Page page = BufferGetPage(buffer);
        OffsetNumber last = PageIsNew(page) ? InvalidOffsetNumber : PageGetMaxOffsetNumber(page);
        if (left == seen->blocks) seen->last_offset = last;
        bool passed = true;
        for (OffsetNumber offset = last; passed && offset >= FirstOffsetNumber; --offset) {
            ItemId item = PageGetItemId(page, offset);
            if (!ItemIdIsNormal(item)) continue;
            auto tuple = reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item));
            if (raw_published_at(tuple) > keep_from && settings::retention > 0) passed = false;
            uint64 xid = raw_xid(tuple);
            if (xid == passed_xid) continue;
            bool behind = true;
            for (int i = 0; behind && i < cursors.count; ++i) behind = finished(cursors.done[i], xid);
            if (!finished(now, xid))
                passed = false;
            else if (!behind)  // what was rolled back nobody waits for
                passed = passed && !TransactionIdDidCommit(HeapTupleHeaderGetXmin(tuple));
            else
                passed_xid = xid;
        }
        UnlockReleaseBuffer(buffer);
        if (!passed) return false;
    }
    FreeAccessStrategy(ring);
    return true;
}

// Nothing has been added since it was looked at.
bool is_unchanged(Relation rel, const Seen& seen) {
    if (compat::relation_file(rel) != seen.file || RelationGetNumberOfBlocks(rel) != seen.blocks) return false;
    Buffer buffer = ReadBuffer(rel, seen.blocks - 1);
    LockBuffer(buffer, BUFFER_LOCK_SHARE);
    Page page = BufferGetPage(buffer);
    OffsetNumber last = PageIsNew(page) ? InvalidOffsetNumber : PageGetMaxOffsetNumber(page);
    UnlockReleaseBuffer(buffer);
    return last == seen.last_offset;
}

BlockNumber blocks_of(Oid segment) {
    Relation rel = table_open(segment, AccessShareLock);
    BlockNumber blocks = RelationGetNumberOfBlocks(rel);
    table_close(rel, AccessShareLock);
    return blocks;
}

// The lock is held for moments by senders, for long by late publishers; those are waited for elsewhere.
bool lock_if_free(Oid segment) {
    for (int attempt = 0; attempt < 20; ++attempt) {
        if (ConditionalLockRelationOid(segment, AccessExclusiveLock)) return true;
        CHECK_FOR_INTERRUPTS();
        pg_usleep(500L);
    }
    return false;
}

void truncate_if_passed(int segment, SharedPlace* place, RotationResult* result) {
    if (!begin_transaction_on_extension("rotating the event log")) return;
    SPI_connect();
    Oid oid = relations().segments[segment];
    int32 newest = newest_route();
    Cursors cursors = load_done();
    XidSnapshot now = take_snapshot(GetActiveSnapshot(), CurrentMemoryContext);
    Seen seen;
    Relation rel = table_open(oid, AccessShareLock);
    bool passed = is_passed(rel, cursors, now, &seen);
    table_close(rel, AccessShareLock);
    if (!passed) {
        result->busy = true;
    } else if (seen.blocks > 0) {
        if (lock_if_free(oid)) {
            // create_route locks the segments before it decides what its route begins with: a route that is not
            // among the routes now will begin after this.
            rel = table_open(oid, NoLock);
            bool unchanged = is_unchanged(rel, seen) && newest_route() == newest;
            table_close(rel, NoLock);
            if (unchanged) {
                place->tails[segment] = InvalidBlockNumber;
                run_query(psprintf("TRUNCATE eventbus.log_%d", segment));
                ++result->truncated;
            } else {
                result->busy = true;
            }
        } else {
            result->busy = true;
        }
    }
    SPI_finish();
    commit_transaction();
}

}  // namespace

RotationResult rotate(bool force_advance, SharedPlace* place) {
    RotationResult result;

    if (!begin_transaction_on_extension("looking at the event log")) {
        result.empty = true;
        return result;
    }
    const Relations log = relations();
    int64 generation = current_generation(log);
    BlockNumber blocks[segment_count];
    for (int i = 0; i < segment_count; ++i) blocks[i] = blocks_of(log.segments[i]);
    int current = segment_of(generation);
    int next = segment_of(generation + 1);
    bool full = static_cast<int64>(blocks[current]) * (BLCKSZ / 1024) >= settings::segment_size;
    if (blocks[current] > 0 && (full || force_advance)) {
        if (blocks[next] == 0) {
            SPI_connect();
            run_query("SELECT setval('eventbus.log_generation', $1)", {Argument::of(generation + 1)});
            SPI_finish();
            ++generation;
            current = next;
            result.advanced = true;
        } else {
            result.busy = true;
        }
    }
    commit_transaction();
    place->generation = generation;

    result.empty = true;
    for (int i = 0; i < segment_count; ++i) {
        if (blocks[i] > 0) result.empty = false;
        if (i != current && blocks[i] > 0) truncate_if_passed(i, place, &result);
    }
    return result;
}

}  // namespace eventbus::log
