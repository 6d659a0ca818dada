// What it is: see tail.hpp.
// Who calls it: see tail.hpp.
// Never: see tail.hpp.
#include "log/tail.hpp"

#include "log/size.hpp"
#include "postgres/compat.hpp"

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

constexpr Size header_size = MAXALIGN(SizeofHeapTupleHeader + (column_count + BITS_PER_BYTE - 1) / BITS_PER_BYTE);

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

// A value as heap_form_tuple stores it.
struct Varlena {
    const varlena* value;
    Size data;
    explicit Varlena(const void* datum) : value(static_cast<const varlena*>(datum)), data(VARSIZE_ANY_EXHDR(value)) {}
    bool is_short() const { return data + VARHDRSZ_SHORT <= VARATT_SHORT_MAX; }
    Size end(Size at) const { return is_short() ? at + VARHDRSZ_SHORT + data : INTALIGN(at) + VARHDRSZ + data; }
};

// Calls visit(column, value) for the columns behind published_at that are not null, in their order.
template <class Visit>
void visit_values(const NewEvent& event, Visit&& visit) {
    visit(column_topic, Varlena(event.topic));
    if (event.key != nullptr) visit(column_key, Varlena(event.key));
    if (event.has_headers) visit(column_headers, Varlena(DatumGetPointer(event.headers)));
    if (event.content_type != nullptr) visit(column_content_type, Varlena(event.content_type));
    visit(event.payload_column, Varlena(DatumGetPointer(event.payload)));
    if (event.captured_by != nullptr) visit(column_captured_by, Varlena(event.captured_by));
}

// Takes the segment's lock. A statement that publishes a million events takes it once; a rolled back savepoint gives
// its locks up, so what is known is known of a subtransaction.
void lock_segment(Oid segment) {
    static Oid locked = InvalidOid;
    static LocalTransactionId in_transaction = InvalidLocalTransactionId;
    static SubTransactionId in_subtransaction = InvalidSubTransactionId;
    LocalTransactionId transaction = compat::my_local_transaction();
    SubTransactionId subtransaction = GetCurrentSubTransactionId();
    if (locked == segment && in_transaction == transaction && in_subtransaction == subtransaction) return;
    LockRelationOid(segment, RowExclusiveLock);
    locked = segment;
    in_transaction = transaction;
    in_subtransaction = subtransaction;
}

}  // namespace

int lock_current_segment(const Relations& log, const SharedPlace* place) {
    for (;;) {
        int64 known = place != nullptr ? place->generation.load() : SharedPlace::unknown_generation;
        int segment = segment_of(known == SharedPlace::unknown_generation ? current_generation(log) : known);
        lock_segment(log.segments[segment]);
        // Once the keeper has seen that nobody has an old segment's lock, nobody comes to it any more.
        if (place == nullptr || place->generation == known) return segment;
    }
}

Size tuple_size(const NewEvent& event) {
    Size size = header_size + 3 * sizeof(int64);
    visit_values(event, [&](Column, const Varlena& value) { size = value.end(size); });
    return size;
}

void form_tuple(const NewEvent& event, int64 id, TimestampTz published_at, HeapTupleHeader header, Size size) {
    auto* begin = reinterpret_cast<char*>(header);
    memset(begin, 0, header_size);
    HeapTupleHeaderSetDatumLength(header, size);
    header->t_hoff = header_size;
    HeapTupleHeaderSetNatts(header, column_count);
    header->t_infomask = HEAP_HASNULL | HEAP_HASVARWIDTH | HEAP_XMAX_INVALID;
    HeapTupleHeaderSetXmin(header, GetCurrentTransactionId());
    HeapTupleHeaderSetCmin(header, GetCurrentCommandId(true));
    HeapTupleHeaderSetXmax(header, InvalidTransactionId);
    header->t_bits[0] = 1 << column_id | 1 << column_xid | 1 << column_published_at;

    int64 fixed[] = {id, static_cast<int64>(U64FromFullTransactionId(GetTopFullTransactionId())), published_at};
    memcpy(begin + header_size, fixed, sizeof fixed);
    Size at = header_size + sizeof fixed;
    visit_values(event, [&](Column column, const Varlena& value) {
        header->t_bits[column / 8] |= static_cast<bits8>(1 << column % 8);
        Size end = value.end(at);
        if (value.is_short()) {
            SET_VARSIZE_SHORT(begin + at, value.data + VARHDRSZ_SHORT);
        } else {
            memset(begin + at, 0, INTALIGN(at) - at);
            SET_VARSIZE(begin + INTALIGN(at), value.data + VARHDRSZ);
        }
        memcpy(begin + end - value.data, VARDATA_ANY(value.value), value.data);
        at = end;
    });
}

void set_id(HeapTupleHeader tuple, int64 id) {
    memcpy(reinterpret_cast<char*>(tuple) + header_size, &id, sizeof id);
}

bool is_large(Size tuple_size) {
    return tuple_size > TOAST_TUPLE_THRESHOLD;
}

void put_at_tail(Relation rel, HeapTupleData* tuples, int count, SharedPlace* place, int segment, bool current) {
    CheckForSerializableConflictIn(rel, nullptr, InvalidBlockNumber);
    Buffer map_buffer = InvalidBuffer;
    for (int done = 0; done < count;) {
        Logged logged = {};
        logged.buffer = lock_tail(rel, MAXALIGN(tuples[done].t_len), place, segment, &map_buffer);
        Page page = BufferGetPage(logged.buffer);
        logged.whole_page = PageGetMaxOffsetNumber(page) == InvalidOffsetNumber;
        int first = done;

        START_CRIT_SECTION();
        do {
            RelationPutHeapTuple(rel, logged.buffer, &tuples[done++], false);
        } while (done < count && PageGetHeapFreeSpace(page) >= MAXALIGN(tuples[done].t_len));
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
    if (BufferIsValid(map_buffer)) ReleaseBuffer(map_buffer);
    pgstat_count_heap_insert(rel, count);
}

}  // namespace eventbus::log
