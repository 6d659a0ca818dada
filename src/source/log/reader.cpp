// The reader: batches between two snapshots, in physical order, which is publishing order.
// Never: trusts a page it has not locked.
//
// The log has no index. Tuples are only ever added to a segment's last page (tail.cpp), so what is before the
// last page is final but for the fate of transactions that were still running when it was read. The reader
// remembers, for each segment, the front (what is behind it need not be looked at again), and for each running
// transaction the stretch of pages behind the front that holds its events. A batch then looks at the stretches of
// the transactions that have finished since, and at what lies ahead of the front. All of this is only a shortcut:
// the snapshots alone say what belongs to a batch, and a reader that starts again with nothing but a cursor looks at
// the whole log once.
//
// The last page has no front within it: VACUUM takes line pointers of what was rolled back away, and their numbers are
// given out again. And VACUUM may cut the file's end off, whose pages then come again with other events. So a front
// stands at the beginning of a page, and is worth something only while the page before it is as it was read, which its
// LSN tells: a file that was cut shorter than that, or grew again, has another page there.
#include "source/log/reader.hpp"

#include <algorithm>

#include "postgres/compat.hpp"
#include "postgres/memory.hpp"
#include "source/log/tuple.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/transam.h"
#include "access/xlog.h"
}

namespace eventbus::log {

namespace {

constexpr BlockNumber pages_a_call = 4096;  // look after other things after so many
constexpr BlockNumber pages_for_ring = 512;
constexpr BlockNumber most_touched_pages = 1024;

struct Front {
    uint32 file = 0;
    BlockNumber block = 0;                  // the first page to look at
    XLogRecPtr before = InvalidXLogRecPtr;  // of the page before it, as it was read
};

struct Pending {  // events of a running transaction, behind the front
    uint64 xid;
    int segment;
    BlockNumber first;
    BlockNumber last;
};

struct Range {  // a stretch of pages that a batch looks at
    int64 generation;
    uint32 file;
    BlockNumber first;
    BlockNumber end;
};

}  // namespace

struct Reader {
    MemoryContext parent;  // of its own memory and of its chunks'
    MemoryContext memory;
    const SharedPlace* shared;
    Cursor place;
    TimestampTz done_at, batch_at;  // when these snapshots were taken; 0: by somebody else
    XLogRecPtr batch_lsn;           // all that the batch sees was written before this
    Front fronts[segment_count];
    Front next_fronts[segment_count];         // after this batch, as far as it has been read,
    BlockNumber front_limits[segment_count];  // and how far they may come
    Pending* pending;
    int pending_count, pending_room;
    Range* ranges;
    int range_count, range_room;
    int range;  // the one being read; place.start stands in it
    bool planned;
    int64 read_from;            // the generation that the batch's last event was read from; 0: none yet
    bool rewritten;             // that one's segment was rewritten, and is read again from its beginning
    BlockNumber touched_pages;  // since they were last forgotten
};

namespace {

template <class T>
T* grow(const Reader* reader, T* array, int* room, int need) {
    if (need <= *room) return array;
    int wider = std::max(need, *room * 2 + 8);
    auto* copy = static_cast<T*>(MemoryContextAlloc(reader->memory, sizeof(T) * wider));
    std::copy(array, array + *room, copy);
    if (array != nullptr) pfree(array);
    *room = wider;
    return copy;
}

void add_range(Reader* reader, const Range& range) {
    reader->ranges = grow(reader, reader->ranges, &reader->range_room, reader->range_count + 1);
    reader->ranges[reader->range_count++] = range;
}

void add_pending(Reader* reader, uint64 xid, int segment, BlockNumber block) {
    for (int i = reader->pending_count - 1; i >= 0; --i) {
        Pending& known = reader->pending[i];
        if (known.xid != xid || known.segment != segment) continue;
        known.first = std::min(known.first, block);
        known.last = std::max(known.last, block);
        return;
    }
    reader->pending = grow(reader, reader->pending, &reader->pending_room, reader->pending_count + 1);
    reader->pending[reader->pending_count++] = {xid, segment, block, block};
}

// Sorts the ranges from `from` on, all of one segment, and joins those that touch.
void join_ranges(Reader* reader, int from) {
    Range* first = reader->ranges + from;
    Range* last = reader->ranges + reader->range_count;
    if (last - first < 2) return;
    std::sort(first, last, [](const Range& a, const Range& b) { return a.first < b.first; });
    Range* kept = first;
    for (Range* range = first + 1; range != last; ++range) {
        if (range->first <= kept->end)
            kept->end = std::max(kept->end, range->end);
        else
            *++kept = *range;
    }
    reader->range_count = static_cast<int>(kept + 1 - reader->ranges);
}

// Puts the place into the range at hand, unless it stands in it already.
void enter_range(Reader* reader) {
    if (reader->range >= reader->range_count) return;
    const Range& range = reader->ranges[reader->range];
    Position first{range.generation, range.first, FirstOffsetNumber};
    if (reader->place.start < first) reader->place.start = first;
}

// Finds the range in which the place stands.
void seek(Reader* reader) {
    const Position& start = reader->place.start;
    reader->range = 0;
    while (reader->range < reader->range_count) {
        const Range& range = reader->ranges[reader->range];
        if (range.generation > start.generation || (range.generation == start.generation && range.end > start.block))
            break;
        ++reader->range;
    }
    enter_range(reader);
}

// The page from which on more may be added: the last one, or the one that publishers take for it.
BlockNumber first_open_page(const Reader* reader, int segment, BlockNumber blocks) {
    BlockNumber tail = reader->shared != nullptr ? reader->shared->tails[segment].load() : InvalidBlockNumber;
    return std::min(blocks - 1, tail);
}

XLogRecPtr lsn_of(Relation rel, BlockNumber block) {
    Buffer buffer = ReadBuffer(rel, block);
    LockBuffer(buffer, BUFFER_LOCK_SHARE);
    XLogRecPtr lsn = BufferGetLSNAtomic(buffer);
    UnlockReleaseBuffer(buffer);
    return lsn;
}

// Whether what lies behind the front is as it was.
bool still_holds(const Front& front, Relation rel, BlockNumber blocks) {
    if (front.file != compat::relation_file(rel) || front.block > blocks) return false;
    if (front.block == 0) return true;
    return RelationNeedsWAL(rel) && !XLogRecPtrIsInvalid(front.before) && lsn_of(rel, front.block - 1) == front.before;
}

// Which pages of a segment the running batch has to look at. The batch resumes after `start`.
void plan_segment(Reader* reader, Relation rel, int64 generation, const Position& start) {
    int segment = segment_of(generation);
    uint32 file = compat::relation_file(rel);
    BlockNumber blocks = RelationGetNumberOfBlocks(rel);
    Front& front = reader->fronts[segment];
    bool known = still_holds(front, rel, blocks);
    if (!known) front = {file};

    int from = reader->range_count;
    int kept = 0;
    for (int i = 0; i < reader->pending_count; ++i) {
        const Pending pending = reader->pending[i];
        if (pending.segment == segment && !known) continue;
        if (pending.segment == segment && finished(reader->place.batch, pending.xid)) {
            add_range(reader, {generation, file, pending.first, std::min(pending.last + 1, blocks)});
            continue;
        }
        reader->pending[kept++] = pending;
    }
    reader->pending_count = kept;
    if (front.block < blocks) add_range(reader, {generation, file, front.block, blocks});
    join_ranges(reader, from);

    // A batch that resumes after a restart skips what lies before its start. Whatever running transactions have there
    // is unknown, so the next batch looks at it again.
    bool whole = start <= Position() || generation > start.generation;
    reader->next_fronts[segment] = whole ? front : Front{file};
    reader->front_limits[segment] = whole && blocks > 0 ? first_open_page(reader, segment, blocks) : 0;
}

// Which pages the running batch has to look at. One lock at a time: DROP EXTENSION takes them in an order of its own.
void plan(Reader* reader) {
    const Relations& log = relations();
    int64 current = current_generation(log);
    uint32 files[segment_count];
    for (int i = 0; i < segment_count; ++i) {
        Relation segment = table_open(log.segments[i], AccessShareLock);
        files[i] = compat::relation_file(segment);
        table_close(segment, AccessShareLock);
    }
    find_place(&reader->place, files);
    const Position start = reader->place.start;
    reader->range_count = 0;
    reader->range = 0;
    const int64 oldest = current - segment_count + 1;
    for (int64 generation = std::max(oldest, reader->place.first_generation); generation <= current; ++generation) {
        Relation segment = table_open(log.segments[segment_of(generation)], AccessShareLock);
        plan_segment(reader, segment, generation, start);
        table_close(segment, AccessShareLock);
    }
    reader->planned = true;
    seek(reader);
}

void end_batch(Reader* reader) {
    std::copy(reader->next_fronts, reader->next_fronts + segment_count, reader->fronts);
    free_snapshot(&reader->place.done);
    reader->place.done = reader->place.batch;
    reader->done_at = reader->batch_at;
    reader->place.batch = XidSnapshot();
    reader->place.in_batch = false;
    reader->place.start = reader->place.end = Position();
    reader->place.settled_id = 0;
}

// What the page scan knows.
struct Scan {
    Reader* reader;
    Snapshot snapshot;
    TupleCopies copies;
    uint32 most;
    BlockNumber pages;  // looked at
    bool check_durable;
    XLogRecPtr durable_from;
    uint64 last_xid;
    enum { old, candidate, running, later } last_class;
};

void classify(Scan& scan, uint64 xid) {
    const Cursor& place = scan.reader->place;
    scan.last_xid = xid;
    if (finished(place.done, xid))
        scan.last_class = Scan::old;
    else if (finished(place.batch, xid))
        scan.last_class = Scan::candidate;
    else
        scan.last_class = xid >= place.batch.xmax ? Scan::later : Scan::running;
}

bool is_ours(const Cursor& place, uint64 xid, int64 id) {
    if (xid == place.creator_xid && id < place.creator_id) return false;
    return !(id <= place.settled_id && place.start < place.end);
}

// Looks at one tuple of a locked page. Returns false when there is no room for it.
bool look_at(Scan& scan, HeapTuple tuple, Buffer buffer) {
    Reader* reader = scan.reader;
    const Position& at = reader->place.start;
    uint64 xid = raw_xid(tuple->t_data);
    if (xid != scan.last_xid) classify(scan, xid);
    switch (scan.last_class) {
        case Scan::old:
            return true;
        case Scan::running:
            add_pending(reader, xid, segment_of(at.generation), at.block);
            return true;
        case Scan::later: {
            int segment = segment_of(at.generation);
            reader->front_limits[segment] = std::min(reader->front_limits[segment], at.block);
            if (at.block < reader->next_fronts[segment].block)
                reader->next_fronts[segment] = {reader->next_fronts[segment].file};
            return true;
        }
        case Scan::candidate:
            break;
    }
    if (!is_ours(reader->place, xid, raw_id(tuple->t_data))) return true;
    if (scan.copies.count >= scan.most) return false;
    if (!HeapTupleSatisfiesVisibility(tuple, scan.snapshot, buffer)) return true;
    if (scan.check_durable) {
        TransactionId xmin = HeapTupleHeaderGetXmin(tuple->t_data);
        if (TransactionIdIsNormal(xmin))
            scan.durable_from = std::max(scan.durable_from, TransactionIdGetCommitLSN(xmin));
    }
    copy_tuple(&scan.copies, tuple, at);
    return true;
}

// Looks at one page from place.start.offset on. Returns false when there was no room before its end; place.start
// then stands at the first tuple not looked at.
bool scan_page(Scan& scan, Relation rel, BufferAccessStrategy ring) {
    Reader* reader = scan.reader;
    Position& at = reader->place.start;
    Buffer buffer = ReadBufferExtended(rel, MAIN_FORKNUM, at.block, RBM_NORMAL, ring);
    LockBuffer(buffer, BUFFER_LOCK_SHARE);
    Page page = BufferGetPage(buffer);
    OffsetNumber last = PageIsNew(page) ? InvalidOffsetNumber : PageGetMaxOffsetNumber(page);
    bool room = true;
    for (; at.offset <= last; ++at.offset) {
        ItemId item = PageGetItemId(page, at.offset);
        if (!ItemIdIsNormal(item)) continue;
        HeapTupleData tuple;
        tuple.t_data = reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item));
        tuple.t_len = ItemIdGetLength(item);
        tuple.t_tableOid = RelationGetRelid(rel);
        ItemPointerSet(&tuple.t_self, at.block, at.offset);
        room = look_at(scan, &tuple, buffer);
        if (!room) break;
    }
    // A page that nothing was ever written to has no LSN to know it by.
    XLogRecPtr lsn = BufferGetLSNAtomic(buffer);
    Front& front = reader->next_fronts[segment_of(at.generation)];
    if (room && at.block >= front.block && at.block < reader->front_limits[segment_of(at.generation)] &&
        !XLogRecPtrIsInvalid(lsn)) {
        front.block = at.block + 1;
        front.before = lsn;
    }
    UnlockReleaseBuffer(buffer);
    return room;
}

// The segment has another file since the batch was planned. The keeper truncates only one that all routes have passed;
// after VACUUM FULL our events may stand anywhere in it, so all of it is looked at.
void replan_segment(Reader* reader, Relation rel) {
    Range& range = reader->ranges[reader->range];
    int segment = segment_of(range.generation);
    range.file = compat::relation_file(rel);
    range.first = 0;
    range.end = RelationGetNumberOfBlocks(rel);
    int kept = reader->range + 1;
    for (int i = kept; i < reader->range_count; ++i)
        if (reader->ranges[i].generation != range.generation) reader->ranges[kept++] = reader->ranges[i];
    reader->range_count = kept;
    kept = 0;
    for (int i = 0; i < reader->pending_count; ++i)
        if (reader->pending[i].segment != segment) reader->pending[kept++] = reader->pending[i];
    reader->pending_count = kept;
    reader->next_fronts[segment] = {range.file};
    reader->front_limits[segment] = range.end > 0 ? first_open_page(reader, segment, range.end) : 0;
    uint32 files[segment_count];
    std::copy(reader->place.files, reader->place.files + segment_count, files);
    files[segment] = range.file;
    find_place(&reader->place, files);
    reader->place.start = {range.generation, 0, FirstOffsetNumber};
    reader->rewritten = reader->rewritten || reader->read_from == range.generation;
}

// Scans until there is no room, the batch is through or the call has taken long enough.
void scan_ranges(Scan& scan) {
    Reader* reader = scan.reader;
    const Relations& log = relations();
    BlockNumber budget = pages_a_call;
    while (reader->range < reader->range_count) {
        Position& at = reader->place.start;
        Relation rel = table_open(log.segments[segment_of(reader->ranges[reader->range].generation)], AccessShareLock);
        if (compat::relation_file(rel) != reader->ranges[reader->range].file) {
            replan_segment(reader, rel);
            scan.copies.count = 0;  // they are of this segment, and come again
        }
        const Range& range = reader->ranges[reader->range];
        // Long stretches don't go through the whole buffer cache.
        BufferAccessStrategy ring = range.end - at.block > pages_for_ring ? GetAccessStrategy(BAS_BULKREAD) : nullptr;
        bool room = true;
        while (at.block < range.end && budget > 0) {
            CHECK_FOR_INTERRUPTS();
            --budget;
            ++scan.pages;
            room = scan_page(scan, rel, ring);
            if (!room) break;
            ++at.block;
            at.offset = FirstOffsetNumber;
        }
        if (ring != nullptr) FreeAccessStrategy(ring);
        bool through = at.block >= range.end;
        table_close(rel, AccessShareLock);
        if (!through) return;
        int64 generation = reader->ranges[reader->range++].generation;
        enter_range(reader);
        // A chunk holds events of one segment: the segment may be left out while they are on their way.
        bool another = reader->range < reader->range_count && reader->ranges[reader->range].generation != generation;
        if (another && scan.copies.count > 0) return;
    }
}

}  // namespace

// Where a segment has another file, places in it say nothing any more: what the batch has there begins again.
void find_place(Cursor* cursor, const uint32* files) {
    auto is_gone = [&](const Position& position) {
        // Behind everything of the batch is behind it in every file.
        if (position <= Position() || position.generation == PG_INT64_MAX) return false;
        return cursor->files[segment_of(position.generation)] != files[segment_of(position.generation)];
    };
    bool start_is_gone = is_gone(cursor->start);
    if (start_is_gone || is_gone(cursor->end)) {
        cursor->end = Position();
        cursor->settled_id = 0;
    }
    if (start_is_gone) cursor->start = {cursor->start.generation, 0, FirstOffsetNumber};
    std::copy(files, files + segment_count, cursor->files);
}

bool must_begin_again(const Reader* reader) {
    return reader->rewritten;
}

Reader* open_reader(const Cursor& cursor, const SharedPlace* shared, MemoryContext parent) {
    MemoryContext memory = AllocSetContextCreate(parent, "pg_eventbus reader", ALLOCSET_SMALL_SIZES);
    auto* reader = static_cast<Reader*>(MemoryContextAllocZero(memory, sizeof(Reader)));
    reader->parent = parent;
    reader->shared = shared;
    reader->memory = memory;
    reader->place = cursor;
    reader->place.done = copy_snapshot(cursor.done, memory);
    reader->place.batch = copy_snapshot(cursor.batch, memory);
    reader->batch_lsn = GetXLogInsertRecPtr();
    return reader;
}

Reader* skip_to(Reader* reader, int64 generation) {
    Cursor skipped = skipped_to(reader->place, generation);
    if (!skipped.in_batch || skipped.start == reader->place.start) {
        reader->place.first_generation = skipped.first_generation;
        return reader;
    }
    // What it knows of the batch holds no longer.
    Reader* fresh = open_reader(skipped, reader->shared, reader->parent);
    close_reader(reader);
    return fresh;
}

Reader* clone_reader(const Reader* reader) {
    Reader* clone = open_reader(reader->place, reader->shared, reader->parent);
    clone->batch_lsn = reader->batch_lsn;
    clone->done_at = reader->done_at;
    clone->batch_at = reader->batch_at;
    std::copy(reader->fronts, reader->fronts + segment_count, clone->fronts);
    std::copy(reader->next_fronts, reader->next_fronts + segment_count, clone->next_fronts);
    std::copy(reader->front_limits, reader->front_limits + segment_count, clone->front_limits);
    clone->read_from = reader->read_from;
    clone->pending = grow(clone, clone->pending, &clone->pending_room, reader->pending_count);
    std::copy(reader->pending, reader->pending + reader->pending_count, clone->pending);
    clone->pending_count = reader->pending_count;
    clone->ranges = grow(clone, clone->ranges, &clone->range_room, reader->range_count);
    std::copy(reader->ranges, reader->ranges + reader->range_count, clone->ranges);
    clone->range_count = reader->range_count;
    clone->range = reader->range;
    clone->planned = reader->planned;
    return clone;
}

void close_reader(Reader* reader) {
    MemoryContextDelete(reader->memory);
}

const Cursor& place_of(const Reader* reader) {
    return reader->place;
}

bool in_batch(const Reader* reader) {
    return reader->place.in_batch;
}

bool same_place(const Reader* a, const Reader* b) {
    const Cursor& x = a->place;
    const Cursor& y = b->place;
    auto creator_is_done = [](const Cursor& place) { return finished(place.done, place.creator_xid); };
    return !x.in_batch && !y.in_batch && same(x.done, y.done) && x.first_generation == y.first_generation &&
           creator_is_done(x) && creator_is_done(y);
}

const XidSnapshot& horizon_of(const Reader* reader) {
    return reader->place.in_batch ? reader->place.batch : reader->place.done;
}

bool has_passed(const Reader* reader, const EventId& id, const EventPlace& event) {
    const Cursor& place = reader->place;
    if (finished(place.done, event.xid)) return true;
    if (!place.in_batch || !reader->planned || !finished(place.batch, event.xid)) return false;
    // Somebody may have rewritten the segment since.
    if (reader->next_fronts[segment_of(event.at.generation)].file != event.file) return false;
    return event.at < place.start || (event.at < place.end && id.number <= place.settled_id);
}

void begin_batch(Reader* reader, const XidSnapshot& snapshot, TimestampTz taken_at) {
    reader->batch_at = taken_at;
    reader->place.batch = copy_snapshot(snapshot, reader->memory);
    reader->place.in_batch = true;
    reader->place.start = reader->place.end = Position();
    reader->place.settled_id = 0;
    reader->batch_lsn = GetXLogInsertRecPtr();
    reader->planned = false;
    reader->read_from = 0;
    reader->rewritten = false;
}

Chunk* read_chunk(Reader* reader, const Limits& limits, const Filter& filter) {
    if (!reader->place.in_batch) return nullptr;
    if (!reader->planned) plan(reader);

    MemoryContext memory = AllocSetContextCreate(reader->parent, "pg_eventbus chunk", ALLOCSET_START_SMALL_SIZES);
    Cursor before = reader->place;
    before.done = copy_snapshot(before.done, memory);
    before.batch = copy_snapshot(before.batch, memory);

    Scan scan = {};
    scan.reader = reader;
    scan.snapshot = GetActiveSnapshot();
    scan.copies.memory = memory;
    scan.most = limits.events;
    scan.check_durable = reader->batch_lsn > GetFlushRecPtr(nullptr);
    scan.last_xid = 0;
    scan.last_class = Scan::old;
    scan_ranges(scan);
    if (scan.pages > 0 && (reader->touched_pages += scan.pages) > most_touched_pages) {
        forget_touched_buffers();
        reader->touched_pages = 0;
    }

    // With synchronous_commit = off a transaction is visible before it is durable. Nobody shall hear of an event
    // that a crash could still undo.
    if (!XLogRecPtrIsInvalid(scan.durable_from)) XLogFlush(scan.durable_from);

    Chunk* chunk = make_chunk(&scan.copies, filter, limits.bytes, &reader->place.start);
    chunk->before = before;
    chunk->committed_after = reader->done_at != 0 ? to_unix_us(reader->done_at) : 0;
    chunk->end = reader->place.start;
    seek(reader);  // make_chunk may have taken less than was scanned
    if (reader->range >= reader->range_count) {
        chunk->end = {PG_INT64_MAX, 0, FirstOffsetNumber};  // behind everything of this batch
        end_batch(reader);
    }
    if (chunk->count == 0) {
        MemoryContextDelete(memory);
        return nullptr;
    }
    if (reader->place.in_batch) reader->read_from = chunk->generation;
    return chunk;
}

const Event* find_in(const source::Chunk* chunk, const EventId& id) {
    const Event* end = chunk->events + chunk->count;
    const Event* found = std::ranges::lower_bound(chunk->events, end, id, {}, &Event::id);
    return found != end && found->id == id ? found : nullptr;
}

Cursor cursor_inside(const Chunk* chunk, uint32 index) {
    Cursor cursor = chunk->before;
    if (index > 0) {
        cursor.end = chunk->end;
        cursor.settled_id = chunk->events[index - 1].id.number;
    }
    return cursor;
}

}  // namespace eventbus::log
