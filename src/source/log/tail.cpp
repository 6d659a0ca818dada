#include "source/log/tail.hpp"

#include <algorithm>

#include "postgres/compat.hpp"
#include "source/log/size.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/heapam_xlog.h"
#include "access/heaptoast.h"
#include "access/hio.h"
#include "access/visibilitymap.h"
#include "access/xloginsert.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/predicate.h"
}

namespace eventbus::log {

namespace {

constexpr int most_new_pages = 16;

bool has_room(Page page, const HeapTupleData& tuple) {
    return PageGetHeapFreeSpace(page) >= MAXALIGN(tuple.t_len);
}

// How many empty pages the tuples fill.
int pages_for(const HeapTupleData* tuples, int count) {
    int pages = 0;
    Size room = 0;
    for (int i = 0; i < count; ++i) {
        Size need = MAXALIGN(tuples[i].t_len) + sizeof(ItemIdData);
        if (need > room) {
            ++pages;
            room = BLCKSZ - SizeOfPageHeaderData;
        }
        room -= need;
    }
    return pages;
}

// The pages at a segment's end that are to be written next, pinned and locked: the last one, or what was added to it.
struct Tail {
    Buffer pages[most_new_pages];
    int count;
    int next;
};

// Makes the tail the segment's last page, if it has room for the first of the tuples, or else as many new ones as they
// fill. Sets *map_buffer when a page is marked all-visible.
//
// Heap inserts look for room where they like: a backend that remembers an older page, or that waited for its lock
// while another one extended the table, puts its tuple there, behind the back of a reader that has already passed.
// Ours go to the last page only, and the table is extended only under the last page's lock, which is held until all
// new pages are locked. So once a reader holds the lock of a page that is not the last one, nobody will ever add to
// that page. Whether a page is the last one the file's length says; shared memory saves asking for it (the reader
// never passes what is noted there).
void lock_tail(Relation rel, const HeapTupleData* tuples, int tuple_count, SharedPlace* place, int segment, Tail* pages,
               Buffer* map_buffer) {
    std::atomic<BlockNumber>* tail = place != nullptr ? &place->tails[segment] : nullptr;
    BlockNumber target = RelationGetTargetBlock(rel);
    for (;;) {
        if (target == InvalidBlockNumber) {
            BlockNumber blocks = RelationGetNumberOfBlocks(rel);
            if (blocks == 0) {
                // Only here is there no last page to lock; two of us may come this far, and the one who comes
                // second wastes a page.
                Buffer first;
                (void)compat::extend(rel, &first, 1);
                count_growth(place, BLCKSZ);
                target = BufferGetBlockNumber(first);
                UnlockReleaseBuffer(first);
            } else {
                target = blocks - 1;
            }
        }

        Buffer buffer = ReadBuffer(rel, target);
        Page page = BufferGetPage(buffer);
        if (PageIsAllVisible(page))
            visibilitymap_pin(rel, target, map_buffer);  // may read from disk: not under the lock
        LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);

        bool map_missing = PageIsAllVisible(page) && !visibilitymap_pin_ok(target, *map_buffer);
        bool known = tail != nullptr && tail->load(std::memory_order_relaxed) == target;
        if (!known || map_missing) {
            BlockNumber blocks = RelationGetNumberOfBlocks(rel);
            if (target + 1 != blocks || map_missing) {
                UnlockReleaseBuffer(buffer);
                target = blocks == 0 ? InvalidBlockNumber : blocks - 1;
                continue;
            }
        }
        // Physical order is publishing order: what VACUUM has made free on the page stays so.
        PageClearHasFreeLinePointers(page);
        if (PageIsNew(page)) {  // a crash came between the extension and the first insert
            PageInit(page, BufferGetPageSize(buffer), 0);
            MarkBufferDirty(buffer);
        }
        pages->next = 0;
        if (has_room(page, tuples[0])) {
            pages->pages[0] = buffer;
            pages->count = 1;
            if (tail != nullptr && !known) *tail = target;
        } else {
            pages->count = compat::extend(rel, pages->pages, std::min(pages_for(tuples, tuple_count), most_new_pages));
            target = BufferGetBlockNumber(pages->pages[pages->count - 1]);
            if (tail != nullptr) *tail = target;  // before anybody else can lock the old one
            count_growth(place, static_cast<int64>(BLCKSZ) * pages->count);
            UnlockReleaseBuffer(buffer);
        }
        RelationSetTargetBlock(rel, target);
        return;
    }
}

// What a record of one tuple and one of many have in common.
struct Logged {
    Buffer buffer;
    bool map_cleared;
    bool whole_page;  // there is nothing on the page but what the record tells: replay starts from an empty page
    uint8 info() const { return whole_page ? XLOG_HEAP_INIT_PAGE : 0; }
    uint8 flags() const { return REGBUF_STANDARD | (whole_page ? REGBUF_WILL_INIT : 0); }
    // No XLH_INSERT_CONTAINS_NEW_TUPLE: the log is nothing that logical decoding should see.
    uint8 insert_flags() const { return map_cleared ? XLH_INSERT_ALL_VISIBLE_CLEARED : 0; }
};

void log_one(const Logged& logged, const HeapTupleData& tuple) {
    xl_heap_insert record;
    record.offnum = ItemPointerGetOffsetNumber(&tuple.t_self);
    record.flags = logged.insert_flags();

    xl_heap_header header;
    header.t_infomask2 = tuple.t_data->t_infomask2;
    header.t_infomask = tuple.t_data->t_infomask;
    header.t_hoff = tuple.t_data->t_hoff;

    XLogBeginInsert();
    XLogRegisterData(reinterpret_cast<char*>(&record), SizeOfHeapInsert);
    XLogRegisterBuffer(0, logged.buffer, logged.flags());
    XLogRegisterBufData(0, reinterpret_cast<char*>(&header), SizeOfHeapHeader);
    XLogRegisterBufData(0, reinterpret_cast<char*>(tuple.t_data) + SizeofHeapTupleHeader,
                        tuple.t_len - SizeofHeapTupleHeader);
    XLogSetRecordFlags(XLOG_INCLUDE_ORIGIN);
    XLogRecPtr lsn = XLogInsert(RM_HEAP_ID, XLOG_HEAP_INSERT | logged.info());
    PageSetLSN(BufferGetPage(logged.buffer), lsn);
}

void log_many(const Logged& logged, const HeapTupleData* tuples, int count) {
    alignas(xl_heap_multi_insert) char head[SizeOfHeapMultiInsert + MaxHeapTuplesPerPage * sizeof(OffsetNumber)];
    auto* record = reinterpret_cast<xl_heap_multi_insert*>(head);
    record->flags = logged.insert_flags();
    record->ntuples = static_cast<uint16>(count);
    Size head_size = SizeOfHeapMultiInsert;
    if (!logged.whole_page) {
        for (int i = 0; i < count; ++i) record->offsets[i] = ItemPointerGetOffsetNumber(&tuples[i].t_self);
        head_size += sizeof(OffsetNumber) * static_cast<Size>(count);
    }

    PGAlignedBlock body;
    Size at = 0;
    for (int i = 0; i < count; ++i) {
        at = SHORTALIGN(at);
        const HeapTupleHeader tuple = tuples[i].t_data;
        Size length = tuples[i].t_len - SizeofHeapTupleHeader;
        xl_multi_insert_tuple header;
        header.datalen = static_cast<uint16>(length);
        header.t_infomask2 = tuple->t_infomask2;
        header.t_infomask = tuple->t_infomask;
        header.t_hoff = tuple->t_hoff;
        memcpy(body.data + at, &header, SizeOfMultiInsertTuple);
        memcpy(body.data + at + SizeOfMultiInsertTuple, reinterpret_cast<char*>(tuple) + SizeofHeapTupleHeader, length);
        at += SizeOfMultiInsertTuple + length;
    }

    XLogBeginInsert();
    XLogRegisterData(head, static_cast<int>(head_size));
    XLogRegisterBuffer(0, logged.buffer, logged.flags());
    XLogRegisterBufData(0, body.data, static_cast<int>(at));
    XLogSetRecordFlags(XLOG_INCLUDE_ORIGIN);
    XLogRecPtr lsn = XLogInsert(RM_HEAP2_ID, XLOG_HEAP2_MULTI_INSERT | logged.info());
    PageSetLSN(BufferGetPage(logged.buffer), lsn);
}

// Redo takes a heap record's tuples for those of the record's transaction, which is the current one. Tuples of its
// parent need the whole page.
void log_page(const Logged& logged, Buffer map_buffer) {
    log_newpage_buffer(logged.buffer, true);
    if (!logged.map_cleared) return;
    LockBuffer(map_buffer, BUFFER_LOCK_EXCLUSIVE);
    log_newpage_buffer(map_buffer, false);
    LockBuffer(map_buffer, BUFFER_LOCK_UNLOCK);
}

// Takes the segment's lock. A statement that publishes a million events takes it once; a rolled back savepoint gives
// its locks up, so what is known is known of a subtransaction. Returns false where it was held already.
bool lock_segment(Oid segment) {
    static Oid locked = InvalidOid;
    static LocalTransactionId in_transaction = InvalidLocalTransactionId;
    static SubTransactionId in_subtransaction = InvalidSubTransactionId;
    LocalTransactionId transaction = compat::my_local_transaction();
    SubTransactionId subtransaction = GetCurrentSubTransactionId();
    if (locked == segment && in_transaction == transaction && in_subtransaction == subtransaction) return false;
    LockRelationOid(segment, RowExclusiveLock);
    locked = segment;
    in_transaction = transaction;
    in_subtransaction = subtransaction;
    return true;
}

}  // namespace

int lock_current_segment(const Relations& log, const SharedPlace* place) {
    for (;;) {
        int64 known = place != nullptr ? place->generation.load() : SharedPlace::unknown_generation;
        const bool look_up = known == SharedPlace::unknown_generation;
        const int64 current = look_up ? current_generation(log) : known;
        const int segment = segment_of(current);
        if (!lock_segment(log.segments[segment])) return segment;
        // Once the keeper has seen that nobody has an old segment's lock, nobody comes to it any more: what is left out
        // of it has been counted.
        if (current == (look_up ? current_generation(log) : place->generation.load())) return segment;
    }
}

void put_at_tail(Relation rel, HeapTupleData* tuples, int count, SharedPlace* place, int segment, bool current) {
    CheckForSerializableConflictIn(rel, nullptr, InvalidBlockNumber);
    Buffer map_buffer = InvalidBuffer;
    Tail tail = {};
    for (int done = 0; done < count;) {
        if (tail.next == tail.count) lock_tail(rel, tuples + done, count - done, place, segment, &tail, &map_buffer);
        Logged logged = {};
        logged.buffer = tail.pages[tail.next++];
        Page page = BufferGetPage(logged.buffer);
        if (!has_room(page, tuples[done])) {  // somebody has found the new page first
            UnlockReleaseBuffer(logged.buffer);
            continue;
        }
        logged.whole_page = PageGetMaxOffsetNumber(page) == InvalidOffsetNumber;
        int first = done;

        START_CRIT_SECTION();
        do {
            RelationPutHeapTuple(rel, logged.buffer, &tuples[done++], false);
        } while (done < count && has_room(page, tuples[done]));
        if (PageIsAllVisible(page)) {
            logged.map_cleared = true;
            PageClearAllVisible(page);
            visibilitymap_clear(rel, BufferGetBlockNumber(logged.buffer), map_buffer, VISIBILITYMAP_VALID_BITS);
        }
        MarkBufferDirty(logged.buffer);
        if (RelationNeedsWAL(rel)) {
            if (!current)
                log_page(logged, map_buffer);
            else if (done - first == 1)
                log_one(logged, tuples[first]);
            else
                log_many(logged, tuples + first, done - first);
        }
        END_CRIT_SECTION();

        UnlockReleaseBuffer(logged.buffer);
    }
    while (tail.next < tail.count) UnlockReleaseBuffer(tail.pages[tail.next++]);
    if (BufferIsValid(map_buffer)) ReleaseBuffer(map_buffer);
    pgstat_count_heap_insert(rel, count);
}

}  // namespace eventbus::log
