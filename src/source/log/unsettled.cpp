// What it is: looking through a segment for what a cursor has not settled, to leave it out.
// Who calls it: the worker room, when the log is full and eventbus.on_log_full is skip.
// Never: reads payloads, or makes events.
#include <algorithm>

#include "postgres/compat.hpp"
#include "source/log/merged_cursors.hpp"
#include "source/log/tuple.hpp"

extern "C" {
#include "access/heapam.h"
}

namespace eventbus::log {

uint32 hold_file(int64 generation) {
    Relation rel = table_open(relations().segments[segment_of(generation)], AccessShareLock);
    uint32 file = compat::relation_file(rel);
    table_close(rel, NoLock);
    return file;
}

bool scan_unsettled(const Cursor& of, int64 generation, BlockNumber* block, BlockNumber pages,
                    void (*visit)(void* context, const Unsettled& event), void* context) {
    Relation rel = table_open(relations().segments[segment_of(generation)], AccessShareLock);
    // With the lock held: rows that were stored again (ALTER TABLE) are of a transaction that an older one does not
    // see.
    PushActiveSnapshot(GetTransactionSnapshot());
    Cursor cursor = of;
    uint32 files[segment_count];
    std::copy(of.files, of.files + segment_count, files);
    files[segment_of(generation)] = compat::relation_file(rel);
    find_place(&cursor, files);
    BlockNumber blocks = RelationGetNumberOfBlocks(rel);
    // Truncated since, and taken for a later generation: nothing of this one is left.
    if (generation <= current_generation(relations()) - segment_count) blocks = 0;
    BlockNumber end = std::min<int64>(blocks, static_cast<int64>(*block) + pages);
    bool through = end == blocks;
    BufferAccessStrategy ring = GetAccessStrategy(BAS_BULKREAD);
    MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "pg_eventbus page", ALLOCSET_SMALL_SIZES);
    MemoryContext before = MemoryContextSwitchTo(memory);
    for (; *block < end; ++*block) {
        CHECK_FOR_INTERRUPTS();
        Buffer buffer = ReadBufferExtended(rel, MAIN_FORKNUM, *block, RBM_NORMAL, ring);
        LockBuffer(buffer, BUFFER_LOCK_SHARE);
        Page page = BufferGetPage(buffer);
        OffsetNumber last = PageIsNew(page) ? InvalidOffsetNumber : PageGetMaxOffsetNumber(page);
        for (OffsetNumber offset = FirstOffsetNumber; offset <= last; ++offset) {
            ItemId item = PageGetItemId(page, offset);
            if (!ItemIdIsNormal(item)) continue;
            HeapTupleData tuple;
            tuple.t_data = reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item));
            tuple.t_len = ItemIdGetLength(item);
            tuple.t_tableOid = RelationGetRelid(rel);
            ItemPointerSet(&tuple.t_self, *block, offset);
            Position at{generation, *block, offset};
            if (settles(cursor, raw_xid(tuple.t_data), at, EventId::of_log(raw_id(tuple.t_data)),
                        files[segment_of(generation)]))
                continue;
            if (!HeapTupleSatisfiesVisibility(&tuple, GetActiveSnapshot(), buffer)) continue;
            visit(context, {heading_of(tuple.t_data), raw_xid(tuple.t_data), at, files[segment_of(generation)]});
        }
        UnlockReleaseBuffer(buffer);
        MemoryContextReset(memory);
    }
    MemoryContextSwitchTo(before);
    MemoryContextDelete(memory);
    FreeAccessStrategy(ring);
    PopActiveSnapshot();
    table_close(rel, AccessShareLock);
    return through;
}

Cursor skipped_to(const Cursor& cursor, int64 generation) {
    Cursor skipped = cursor;
    skipped.first_generation = std::max(cursor.first_generation, generation);
    Position first{generation, 0, FirstOffsetNumber};
    if (cursor.in_batch && cursor.start < first) skipped.start = first;
    return skipped;
}

}  // namespace eventbus::log
