// Never: keeps a segment's lock: rotation would have to wait for the caller's transaction.
//
// There is no index, but ids rise along a segment, give or take what publishers did at the same time. So the place is
// guessed by bisection, and its neighbourhood looked at; only what is not there makes us look at every page.
#include "source/log/find.hpp"

#include <algorithm>

#include "postgres/compat.hpp"
#include "source/log/tuple.hpp"

extern "C" {
#include "access/transam.h"
}

namespace eventbus::log {

namespace {

constexpr BlockNumber neighbourhood = 32;  // pages on each side of the guess

struct Search {
    Relation rel;
    int64 generation;
    int64 id;
    FoundEvent* found;
};

// Calls visit(header, length, offset) for the tuples of a page until it returns true.
template <class Visit>
bool visit_page(Relation rel, BlockNumber block, BufferAccessStrategy ring, Visit&& visit) {
    CHECK_FOR_INTERRUPTS();
    Buffer buffer = ReadBufferExtended(rel, MAIN_FORKNUM, block, RBM_NORMAL, ring);
    LockBuffer(buffer, BUFFER_LOCK_SHARE);
    Page page = BufferGetPage(buffer);
    OffsetNumber last = PageIsNew(page) ? InvalidOffsetNumber : PageGetMaxOffsetNumber(page);
    bool done = false;
    for (OffsetNumber offset = FirstOffsetNumber; !done && offset <= last; ++offset) {
        ItemId item = PageGetItemId(page, offset);
        if (!ItemIdIsNormal(item)) continue;
        done = visit(reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item)), ItemIdGetLength(item), offset);
    }
    UnlockReleaseBuffer(buffer);
    return done;
}

// The first id that stands on the page or, where VACUUM has emptied it, behind it and before `end`.
int64 first_id(Relation rel, BlockNumber block, BlockNumber end) {
    int64 id = PG_INT64_MAX;
    bool found = false;
    for (; !found && block < end; ++block)
        found = visit_page(rel, block, nullptr, [&](HeapTupleHeader tuple, Size, OffsetNumber) {
            id = raw_id(tuple);
            return true;
        });
    return id;
}

// Looks at [from, end) from its end on: what somebody waits for is mostly new.
bool look_at(const Search& search, BlockNumber from, BlockNumber end, BufferAccessStrategy ring) {
    HeapTupleHeader copy = nullptr;
    while (end > from && copy == nullptr) {
        --end;
        visit_page(search.rel, end, ring, [&](HeapTupleHeader tuple, Size length, OffsetNumber offset) {
            if (raw_id(tuple) != search.id) return false;
            copy = static_cast<HeapTupleHeader>(palloc(length));
            std::memcpy(static_cast<void*>(copy), tuple, length);
            search.found->place = {raw_xid(tuple), compat::relation_file(search.rel),
                                   Position{search.generation, end, offset}, 0};
            return true;
        });
    }
    if (copy == nullptr) return false;
    search.found->xmin = HeapTupleHeaderGetXmin(copy);
    Event event = heading_of(copy);
    search.found->topic = event.topic;
    search.found->key = event.key;
    search.found->place.key_mark = mark_of(event.key);
    search.found->fate = fate_of(search.found->xmin);
    return true;
}

bool look_nearby(const Search& search) {
    BlockNumber blocks = RelationGetNumberOfBlocks(search.rel);
    BlockNumber low = 0;
    BlockNumber high = blocks;
    while (low < high) {
        BlockNumber middle = low + (high - low) / 2;
        if (first_id(search.rel, middle, high) <= search.id)
            low = middle + 1;
        else
            high = middle;
    }
    return look_at(search, low > neighbourhood ? low - neighbourhood : 0, std::min(blocks, low + neighbourhood),
                   nullptr);
}

bool look_everywhere(const Search& search) {
    BufferAccessStrategy ring = GetAccessStrategy(BAS_BULKREAD);
    bool found = look_at(search, 0, RelationGetNumberOfBlocks(search.rel), ring);
    FreeAccessStrategy(ring);
    return found;
}

}  // namespace

FoundEvent find_event(int64 id) {
    FoundEvent found = {};
    const Relations& log = relations();
    if (id > last_event_id(log) || id <= 0) return found;
    int64 current = current_generation(log);
    for (auto look : {look_nearby, look_everywhere})
        for (int64 generation = current; generation > current - segment_count; --generation) {
            Relation rel = table_open(log.segments[segment_of(generation)], AccessShareLock);
            bool there = look({rel, generation, id, &found});
            table_close(rel, AccessShareLock);
            if (there) return found;
        }
    found.fate = Fate::gone;
    return found;
}

Fate fate_of(TransactionId xmin) {
    if (TransactionIdIsCurrentTransactionId(xmin)) return Fate::ours;
    if (TransactionIdIsInProgress(xmin)) return Fate::running;
    return TransactionIdDidCommit(xmin) ? Fate::committed : Fate::undone;
}

}  // namespace eventbus::log
