// Who calls it: the keeper.
// Never: takes a segment's lock unless it is free: publishers hold theirs to the end of their transactions.
#include "source/log/rotation.hpp"

#include <cstdlib>
#include <numeric>

#include "postgres/compat.hpp"
#include "postgres/query.hpp"
#include "settings/settings.hpp"
#include "source/log/size.hpp"
#include "source/log/tuple.hpp"

extern "C" {
#include "access/transam.h"
}

namespace eventbus::log {

namespace {

struct Seen {  // how far a segment was looked at
    uint32 file;
    BlockNumber blocks;
    BlockNumber written;  // so many pages have ever been written to (those behind were added and are empty),
    XLogRecPtr lsn;       // and this is the last one's
};

struct Passed {  // how far one cursor has got
    XidSnapshot done;
    bool in_batch;
    XidSnapshot batch;
    int64 generation;  // in which the batch is being read
    int64 first;       // generation that it reads; earlier ones were left out
};

struct Cursors {
    Passed* items;
    int count;
};

bool same(const Passed& a, const Passed& b) {
    return same(a.done, b.done) && a.first == b.first && a.in_batch == b.in_batch && a.generation == b.generation &&
           (!a.in_batch || same(a.batch, b.batch));
}

// Whether the cursor is behind the events that a finished transaction has in a segment.
bool is_behind(const Passed& cursor, uint64 xid, int64 generation) {
    return generation < cursor.first || finished(cursor.done, xid) ||
           (cursor.in_batch && generation < cursor.generation && finished(cursor.batch, xid));
}

Cursors load_cursors() {
    run_query(
        "SELECT coalesce(c.done::text, '1:1:'), c.batch::text, c.start_generation, c.first_generation "
        "FROM eventbus.route_config r LEFT JOIN eventbus.cursor c ON c.route_id = r.id WHERE r.source = 'log'",
        {}, true);
    Cursors cursors;
    cursors.count = static_cast<int>(SPI_processed);
    cursors.items = static_cast<Passed*>(palloc0(sizeof(Passed) * (cursors.count + 1)));
    int count = 0;
    for (int i = 0; i < cursors.count; ++i) {
        Passed& cursor = cursors.items[count];
        cursor.done = snapshot_from_text(text_at(i, 1), CurrentMemoryContext);
        cursor.in_batch = !is_null_at(i, 2);
        if (cursor.in_batch) cursor.batch = snapshot_from_text(text_at(i, 2), CurrentMemoryContext);
        cursor.generation = int8_at(i, 3);
        cursor.first = int8_at(i, 4);
        bool known = false;  // routes that go along together are checked once
        for (int j = 0; !known && j < count; ++j) known = same(cursors.items[j], cursor);
        if (!known) ++count;
    }
    cursors.count = count;
    return cursors;
}

// Which routes there are, and which versions of their rows, as committed by now. Not the highest id: transactions
// commit in an order of their own.
char* known_routes() {
    run_query("SELECT coalesce(string_agg(id || ':' || xmin, ',' ORDER BY id), '') FROM eventbus.route_config");
    return text_at(0, 1);
}

// Read before the routes: who drops one raises it first.
int64 not_counted_up_to() {
    run_query("SELECT last_value FROM eventbus.unrouted_after");
    return int8_at(0, 1);
}

// Whether every event of the segment is behind all cursors and, where `retain` says so, older than eventbus.retention.
// Transactions that are still running are not behind `now`, whoever reads the log.
bool is_passed(Relation rel, int64 generation, const Cursors& cursors, const XidSnapshot& now, bool retain,
               Tally* tally, Seen* seen) {
    seen->file = compat::relation_file(rel);
    seen->blocks = RelationGetNumberOfBlocks(rel);
    seen->written = 0;
    seen->lsn = InvalidXLogRecPtr;
    // A clock that was set back leaves events from the future behind: they are kept no longer than twice the time.
    const int64 retention_us = static_cast<int64>(settings::retention) * USECS_PER_SEC;
    const TimestampTz now_us = GetCurrentTimestamp();
    BufferAccessStrategy ring = GetAccessStrategy(BAS_BULKREAD);
    uint64 passed_xid = 0;
    // From the last page backwards: what is not passed yet is most likely there.
    for (BlockNumber left = seen->blocks; left > 0; --left) {
        CHECK_FOR_INTERRUPTS();
        Buffer buffer = ReadBufferExtended(rel, MAIN_FORKNUM, left - 1, RBM_NORMAL, ring);
        LockBuffer(buffer, BUFFER_LOCK_SHARE);
        Page page = BufferGetPage(buffer);
        OffsetNumber last = PageIsNew(page) ? InvalidOffsetNumber : PageGetMaxOffsetNumber(page);
        XLogRecPtr lsn = BufferGetLSNAtomic(buffer);
        if (seen->written == 0 && !XLogRecPtrIsInvalid(lsn)) {
            seen->written = left;
            seen->lsn = lsn;
        }
        bool passed = true;
        for (OffsetNumber offset = last; passed && offset >= FirstOffsetNumber; --offset) {
            ItemId item = PageGetItemId(page, offset);
            if (!ItemIdIsNormal(item)) continue;
            auto tuple = reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item));
            if (retain && std::abs(now_us - raw_published_at(tuple)) < retention_us) passed = false;
            uint64 xid = raw_xid(tuple);
            if (xid != passed_xid) {
                bool behind = true;
                for (int i = 0; behind && i < cursors.count; ++i) behind = is_behind(cursors.items[i], xid, generation);
                if (!finished(now, xid))
                    passed = false;
                else if (!behind)  // what was rolled back nobody waits for
                    passed = passed && !TransactionIdDidCommit(HeapTupleHeaderGetXmin(tuple));
                else
                    passed_xid = xid;
            }
            if (passed && tally != nullptr) note(tally, tuple);
        }
        UnlockReleaseBuffer(buffer);
        if (!passed) return false;
    }
    FreeAccessStrategy(ring);
    return true;
}

// Nothing has been added since it was looked at. What is on a page, and how much, does not tell: VACUUM makes places
// free that are used again, and may cut off pages that come again.
bool is_unchanged(Relation rel, const Seen& seen) {
    if (compat::relation_file(rel) != seen.file || RelationGetNumberOfBlocks(rel) != seen.blocks) return false;
    if (!RelationNeedsWAL(rel)) return seen.blocks == 0;
    BlockNumber first = seen.written > 0 ? seen.written - 1 : 0;
    for (BlockNumber block = first; block < seen.blocks; ++block) {
        Buffer buffer = ReadBuffer(rel, block);
        LockBuffer(buffer, BUFFER_LOCK_SHARE);
        XLogRecPtr lsn = BufferGetLSNAtomic(buffer);
        UnlockReleaseBuffer(buffer);
        if (lsn != (block + 1 == seen.written ? seen.lsn : InvalidXLogRecPtr)) return false;
    }
    return true;
}

// The log as a round of upkeep sees it.
struct Log {
    Relations relations;
    int64 current;  // generation
    int64 bytes[segment_count];
    int64 limit;  // 0: none
    int64 wanted;

    int64 total() const { return std::accumulate(bytes, bytes + segment_count, int64(0)); }
    int64 in_older() const { return total() - bytes[segment_of(current)]; }
    bool is_full() const { return limit > 0 && total() + wanted > limit; }
    // What is kept for eventbus.retention gives way before anything is refused or left out.
    bool is_tight() const { return limit > 0 && total() + wanted > limit / 4 * 3; }
};

// False where the extension is gone.
bool look(Log* log, SharedPlace* place) {
    if (!begin_transaction_on_extension("looking at the event log")) return false;
    log->relations = relations();
    log->current = current_generation(log->relations);
    for (int i = 0; i < segment_count; ++i) {
        Relation rel = table_open(log->relations.segments[i], AccessShareLock);
        log->bytes[i] = bytes_of(rel);
        place->toast[i] = toast_bytes_of(rel);
        table_close(rel, AccessShareLock);
    }
    commit_transaction();
    return true;
}

void truncate_if_passed(Log* log, int64 generation, SharedPlace* place, ReadTakers read_takers) {
    int segment = segment_of(generation);
    if (log->bytes[segment] == 0) return;
    if (!begin_transaction_on_extension("rotating the event log")) return;
    SPI_connect();
    Oid oid = log->relations.segments[segment];
    const int64 after = not_counted_up_to();
    const char* routes = known_routes();
    Tally* tally = begin_tally(read_takers(routes), after);
    Cursors cursors = load_cursors();
    XidSnapshot now = take_snapshot(GetActiveSnapshot(), CurrentMemoryContext);
    Seen seen;
    Relation rel = table_open(oid, AccessShareLock);
    bool retain = settings::retention > 0 && !log->is_tight();
    bool passed = is_passed(rel, generation, cursors, now, retain, tally, &seen);
    table_close(rel, AccessShareLock);
    bool truncated = false;
    const bool counts = passed && may_write(tally);
    // Held for moments by senders, for long by late publishers; those are waited for elsewhere.
    if (passed && lock_if_free(oid, AccessExclusiveLock)) {
        // create_route locks the segments before it decides what its route begins with: a route that is not
        // among the routes now will begin after this.
        rel = table_open(oid, NoLock);
        truncated = is_unchanged(rel, seen) && strcmp(known_routes(), routes) == 0;
        table_close(rel, NoLock);
        if (truncated) {
            place->tails[segment] = InvalidBlockNumber;
            place->toast[segment] = SharedPlace::unknown_bytes;
            if (counts) write(tally);
            run_query(psprintf("TRUNCATE eventbus.log_%d", segment));
            (void)measured_size(place);
        }
    }
    SPI_finish();
    commit_transaction();
    if (truncated) log->bytes[segment] = 0;
}

// From which size on the log moves to its next segment. With a limit there shall be several segments to release one
// after the other when it is reached: while older ones are held, what is left is shared by those that are not.
int64 segment_limit(const Log& log) {
    int64 size = static_cast<int64>(settings::segment_size) * 1024;
    if (log.limit == 0) return size;
    int held = 0;
    for (int i = 0; i < segment_count; ++i) held += i != segment_of(log.current) && log.bytes[i] > 0 ? 1 : 0;
    if (held == 0) return std::min(size, log.limit / segment_count);
    return std::max(std::min(size, log.limit / segment_count), (log.limit - log.in_older()) / (segment_count - held));
}

// Continues to the next segment, which is empty.
void advance(Log* log, SharedPlace* place) {
    if (!begin_transaction_on_extension("moving on in the event log")) return;
    SPI_connect();
    run_query("SELECT setval('eventbus.log_generation', $1)", {Argument::of(log->current + 1)});
    SPI_finish();
    commit_transaction();
    place->generation = ++log->current;
}

// The generation after the oldest segment's, where only routes keep that one. Once its lock was free nobody will
// publish into it any more (see append).
int64 held_by_routes(const Log& log, int64 known) {
    int64 oldest = log.current - segment_count + 1;
    while (oldest < log.current && log.bytes[segment_of(oldest)] == 0) ++oldest;
    if (oldest + 1 == known) return known;
    if (oldest == log.current || !begin_transaction_on_extension("looking for what holds the event log")) return 0;
    bool free = lock_if_free(log.relations.segments[segment_of(oldest)], AccessExclusiveLock);
    commit_transaction();
    return free ? oldest + 1 : 0;
}

}  // namespace

RotationResult rotate(bool force_advance, int64 wanted, int64 held_before, int64 limit, SharedPlace* place,
                      ReadTakers read_takers) {
    RotationResult result;
    Log log;
    log.limit = limit;
    log.wanted = wanted;
    if (!look(&log, place)) {
        result.empty = true;
        return result;
    }
    place->generation = log.current;
    place->bytes = log.total();
    for (int64 generation = log.current - segment_count + 1; generation < log.current; ++generation)
        truncate_if_passed(&log, generation, place, read_takers);

    const int64 current = log.current;
    const int64 bytes = log.bytes[segment_of(current)];
    bool hurried = force_advance || log.is_full();
    // With a limit, what is held in older segments is not to take all of them up for its age alone.
    bool due = bytes >= segment_limit(log) || (hurried && (log.limit == 0 || log.in_older() == 0));
    if (bytes > 0 && (due || hurried)) {
        if (due && log.bytes[segment_of(current + 1)] == 0) {
            advance(&log, place);
            result.advanced = true;
        }
        truncate_if_passed(&log, current, place, read_takers);  // also where there is no segment to continue to
    }
    result.bytes = place->bytes;
    result.empty = log.total() == 0;
    result.full = log.limit > 0 && result.bytes + wanted > log.limit;
    if (result.full) result.held_before = held_by_routes(log, held_before);
    return result;
}

}  // namespace eventbus::log
