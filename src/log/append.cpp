// What it is: appending an event to the current segment, below the SQL executor.
// Who calls it: intake.
// Never: puts a tuple anywhere but at the end of a segment: the reader relies on it (see lock_tail).
#include "log/size.hpp"
#include "postgres/compat.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/heapam_xlog.h"
#include "access/heaptoast.h"
#include "access/hio.h"
#include "access/visibilitymap.h"
#include "access/xloginsert.h"
#include "commands/sequence.h"
#include "pgstat.h"
#include "storage/predicate.h"
}

namespace eventbus::log {

namespace {

bool appended = false;

// Returns the segment's last page, pinned and locked, with room for `need` bytes, and sets *map_buffer when the
// page is marked all-visible.
//
// Heap inserts look for room where they like: a backend that remembers an older page, or that waited for its lock
// while another one extended the table, puts its tuple there, behind the back of a reader that has already passed.
// Ours go to the last page only, and the table is extended only under the last page's lock. So once a reader holds
// the lock of a page that is not the last one, nobody will ever add to that page. Whether a page is the last one
// the file's length says; shared memory saves asking for it (the reader never passes what is noted there).
Buffer lock_tail(Relation rel, Size need, SharedPlace* place, int segment, Buffer* map_buffer) {
    std::atomic<BlockNumber>* tail = place != nullptr ? &place->tails[segment] : nullptr;
    BlockNumber target = RelationGetTargetBlock(rel);
    for (;;) {
        if (target == InvalidBlockNumber) {
            BlockNumber blocks = RelationGetNumberOfBlocks(rel);
            if (blocks == 0) {
                // Only here is there no last page to lock; two of us may come this far, and the one who comes
                // second wastes a page.
                Buffer first = compat::extend_by_one(rel);
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
        if (PageIsNew(page)) {  // a crash came between the extension and the first insert
            PageInit(page, BufferGetPageSize(buffer), 0);
            MarkBufferDirty(buffer);
        }
        if (PageGetHeapFreeSpace(page) < need) {
            Buffer next = compat::extend_by_one(rel);
            target = BufferGetBlockNumber(next);
            if (tail != nullptr) *tail = target;  // before anybody else can lock the old one
            count_growth(place, BLCKSZ);
            UnlockReleaseBuffer(buffer);
            buffer = next;
        } else if (tail != nullptr && !known) {
            *tail = target;
        }
        RelationSetTargetBlock(rel, target);
        return buffer;
    }
}

void write_wal(Buffer buffer, HeapTuple tuple, bool map_cleared) {
    Page page = BufferGetPage(buffer);
    OffsetNumber offset = ItemPointerGetOffsetNumber(&tuple->t_self);

    // No XLH_INSERT_CONTAINS_NEW_TUPLE: the log is nothing that logical decoding should see.
    xl_heap_insert record;
    record.offnum = offset;
    record.flags = map_cleared ? XLH_INSERT_ALL_VISIBLE_CLEARED : 0;

    xl_heap_header header;
    header.t_infomask2 = tuple->t_data->t_infomask2;
    header.t_infomask = tuple->t_data->t_infomask;
    header.t_hoff = tuple->t_data->t_hoff;

    uint8 info = XLOG_HEAP_INSERT;
    uint8 flags = REGBUF_STANDARD;
    if (offset == FirstOffsetNumber && PageGetMaxOffsetNumber(page) == FirstOffsetNumber) {
        info |= XLOG_HEAP_INIT_PAGE;  // replay starts from an empty page: no full-page image is needed
        flags |= REGBUF_WILL_INIT;
    }

    XLogBeginInsert();
    XLogRegisterData(reinterpret_cast<char*>(&record), SizeOfHeapInsert);
    XLogRegisterBuffer(0, buffer, flags);
    XLogRegisterBufData(0, reinterpret_cast<char*>(&header), SizeOfHeapHeader);
    XLogRegisterBufData(0, reinterpret_cast<char*>(tuple->t_data) + SizeofHeapTupleHeader,
                        tuple->t_len - SizeofHeapTupleHeader);
    XLogSetRecordFlags(XLOG_INCLUDE_ORIGIN);
    XLogRecPtr lsn = XLogInsert(RM_HEAP_ID, info);
    PageSetLSN(page, lsn);
}

void append_tuple(Relation rel, HeapTuple tuple, SharedPlace* place, int segment) {
    HeapTupleHeader header = tuple->t_data;
    header->t_infomask &= ~HEAP_XACT_MASK;
    header->t_infomask2 &= ~HEAP2_XACT_MASK;
    header->t_infomask |= HEAP_XMAX_INVALID;
    HeapTupleHeaderSetXmin(header, GetCurrentTransactionId());
    HeapTupleHeaderSetCmin(header, GetCurrentCommandId(true));
    HeapTupleHeaderSetXmax(header, InvalidTransactionId);
    tuple->t_tableOid = RelationGetRelid(rel);

    if (HeapTupleHasExternal(tuple) || tuple->t_len > TOAST_TUPLE_THRESHOLD) {
        // Before it is there, so that those who publish large values at the same time know of each other.
        int64 expected = tuple->t_len;
        count_growth(place, expected);
        tuple = heap_toast_insert_or_update(rel, tuple, nullptr, HEAP_INSERT_NO_LOGICAL);
        if (place != nullptr) count_growth(place, toast_growth(rel, &place->toast[segment], expected) - expected);
    }

    CheckForSerializableConflictIn(rel, nullptr, InvalidBlockNumber);

    Buffer map_buffer = InvalidBuffer;
    Buffer buffer = lock_tail(rel, MAXALIGN(tuple->t_len), place, segment, &map_buffer);
    Page page = BufferGetPage(buffer);
    bool map_cleared = false;

    START_CRIT_SECTION();
    RelationPutHeapTuple(rel, buffer, tuple, false);
    if (PageIsAllVisible(page)) {
        map_cleared = true;
        PageClearAllVisible(page);
        visibilitymap_clear(rel, BufferGetBlockNumber(buffer), map_buffer, VISIBILITYMAP_VALID_BITS);
    }
    MarkBufferDirty(buffer);
    if (RelationNeedsWAL(rel)) write_wal(buffer, tuple, map_cleared);
    END_CRIT_SECTION();

    UnlockReleaseBuffer(buffer);
    if (BufferIsValid(map_buffer)) ReleaseBuffer(map_buffer);
    pgstat_count_heap_insert(rel, 1);
}

// Opens a segment with the lock that a writer holds to the end of its transaction. A statement that publishes a
// million events takes it once; a rolled back savepoint gives its locks up, so the cache is per subtransaction.
Relation open_for_append(Oid segment) {
    static Oid locked = InvalidOid;
    static LocalTransactionId in_transaction = InvalidLocalTransactionId;
    static SubTransactionId in_subtransaction = InvalidSubTransactionId;
    LocalTransactionId transaction = compat::my_local_transaction();
    SubTransactionId subtransaction = GetCurrentSubTransactionId();
    if (locked == segment && in_transaction == transaction && in_subtransaction == subtransaction)
        return table_open(segment, NoLock);
    Relation rel = table_open(segment, RowExclusiveLock);
    locked = segment;
    in_transaction = transaction;
    in_subtransaction = subtransaction;
    return rel;
}

}  // namespace

int64 append(const NewEvent& event) {
    const Relations& log = relations();

    // The id before the place: what was published before is then never behind what is published after.
    int64 id = nextval_internal(log.event_id, false);
    int segment;
    Relation rel;
    for (;;) {
        int64 known = event.place != nullptr ? event.place->generation.load() : SharedPlace::unknown_generation;
        segment = segment_of(known == SharedPlace::unknown_generation ? current_generation(log) : known);
        rel = open_for_append(log.segments[segment]);
        // Once the keeper has seen that nobody has an old segment's lock, nobody comes to it any more.
        if (event.place == nullptr || event.place->generation == known) break;
        table_close(rel, NoLock);
    }

    Datum values[column_count] = {};
    bool nulls[column_count];
    for (bool& null : nulls) null = true;
    auto set = [&](Column column, Datum value) {
        values[column] = value;
        nulls[column] = false;
    };
    set(column_id, Int64GetDatum(id));
    set(column_xid, UInt64GetDatum(U64FromFullTransactionId(GetTopFullTransactionId())));
    set(column_published_at, TimestampTzGetDatum(GetCurrentTimestamp()));
    set(column_topic, PointerGetDatum(event.topic));
    if (event.key != nullptr) set(column_key, PointerGetDatum(event.key));
    if (event.has_headers) set(column_headers, event.headers);
    if (event.content_type != nullptr) set(column_content_type, PointerGetDatum(event.content_type));
    set(event.payload_column, event.payload);

    HeapTuple tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
    append_tuple(rel, tuple, event.place, segment);
    heap_freetuple(tuple);
    table_close(rel, NoLock);  // the lock stays to the end of the transaction: it is what makes rotation safe
    appended = true;
    return id;
}

bool appended_in_this_transaction() {
    return appended;
}
void forget_appended() {
    appended = false;
}

}  // namespace eventbus::log
