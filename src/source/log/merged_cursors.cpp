// Snapshots of one server follow one another, so that of two the earlier one sees a part of what the later one sees.
// Cursors of routes that are made together, or that a sender which ends leaves behind, differ little: one batch, or two
// that follow each other, and places within it. Who reads from where they meet looks at that little twice, and the log
// once.
#include "source/log/merged_cursors.hpp"

#include <algorithm>

namespace eventbus::log {

namespace {

// Every transaction that has finished in a has finished in b.
bool is_part_of(const XidSnapshot& a, const XidSnapshot& b) {
    const uint64* end = a.running + a.count;
    if (a.xmax > b.xmax) {
        auto after = static_cast<uint64>(end - std::lower_bound(a.running, a.running + a.count, b.xmax));
        if (after != a.xmax - b.xmax) return false;
    }
    for (int i = 0; i < b.count; ++i)
        if (finished(a, b.running[i])) return false;
    return true;
}

// What has finished in both.
XidSnapshot common(const XidSnapshot& a, const XidSnapshot& b, MemoryContext memory) {
    XidSnapshot both;
    both.xmax = std::min(a.xmax, b.xmax);
    both.running = static_cast<uint64*>(MemoryContextAlloc(memory, sizeof(uint64) * (a.count + b.count + 1)));
    uint64* end = std::set_union(a.running, a.running + a.count, b.running, b.running + b.count, both.running);
    both.count = static_cast<int>(std::lower_bound(both.running, end, both.xmax) - both.running);
    both.xmin = both.count > 0 ? both.running[0] : both.xmax;
    return both;
}

// Of a batch that both are in.
bool covers_in_batch(const Cursor& cursor, const Cursor& other) {
    if (!std::equal(cursor.files, cursor.files + segment_count, other.files)) return false;
    return std::max(other.start, other.end) <= cursor.start ||
           (other.start <= cursor.start && other.end <= cursor.end && other.settled_id <= cursor.settled_id);
}

}  // namespace

bool settles(const Cursor& cursor, uint64 xid, const Position& at, const EventId& id, uint32 file) {
    if (finished(cursor.done, xid)) return true;
    if (xid == cursor.creator_xid && id.number < cursor.creator_id) return true;
    if (at.generation < cursor.first_generation) return true;
    if (!cursor.in_batch || !finished(cursor.batch, xid)) return false;
    if (at.generation < cursor.start.generation) return true;
    if (cursor.files[segment_of(at.generation)] != file) return false;
    return at < cursor.start || (at < cursor.end && id.number <= cursor.settled_id);
}

bool covers(const Cursor& cursor, const Cursor& other) {
    if (!is_part_of(other.done, cursor.done)) return false;
    if (!other.in_batch || is_part_of(other.batch, cursor.done)) return true;
    return cursor.in_batch && same(other.batch, cursor.batch) && covers_in_batch(cursor, other);
}

Cursor meet(const Cursor* const* cursors, int count, MemoryContext memory) {
    Cursor place = copy_cursor(*cursors[0], memory);
    place.creator_xid = 0;
    place.creator_id = 0;
    bool same_batch = place.in_batch;
    for (int i = 1; i < count; ++i) {
        const Cursor& other = *cursors[i];
        if (!same(place.done, other.done)) {
            XidSnapshot done = common(place.done, other.done, memory);
            free_snapshot(&place.done);
            place.done = done;
        }
        place.first_generation = std::min(place.first_generation, other.first_generation);
        same_batch = same_batch && other.in_batch && same(place.batch, other.batch) &&
                     std::equal(place.files, place.files + segment_count, other.files);
        if (same_batch) {
            if (place.start == other.start && place.end == other.end)
                place.settled_id = std::min(place.settled_id, other.settled_id);
            else
                place.end = Position();
            place.start = std::min(place.start, other.start);
        } else if (other.in_batch && (!place.in_batch || is_later(place.batch, other.batch))) {
            free_snapshot(&place.batch);
            place.batch = copy_snapshot(other.batch, memory);
            place.in_batch = true;
        }
    }
    if (count > 1 && !same_batch) place.start = place.end = Position();  // of the earliest batch all is to be seen
    if (place.end <= place.start) {
        place.end = Position();
        place.settled_id = 0;
    }
    return place;
}

Cursor behind_both(const Cursor& from, const Cursor& place) {
    Cursor cursor = place;
    if (!covers(place, from)) {
        bool follows = place.in_batch && is_part_of(place.done, from.done) && is_part_of(from.done, place.batch) &&
                       !is_part_of(place.batch, from.done);
        if (from.in_batch) follows = follows && same(from.batch, place.batch) && covers_in_batch(place, from);
        if (!follows) return from;
        cursor.done = from.done;
    }
    cursor.creator_xid = from.creator_xid;
    cursor.creator_id = from.creator_id;
    cursor.first_generation = std::max(cursor.first_generation, from.first_generation);
    return cursor;
}

Cursor copy_cursor(const Cursor& cursor, MemoryContext memory) {
    Cursor copy = cursor;
    copy.done = copy_snapshot(cursor.done, memory);
    copy.batch = copy_snapshot(cursor.batch, memory);
    return copy;
}

void free_cursor(Cursor* cursor) {
    free_snapshot(&cursor->done);
    free_snapshot(&cursor->batch);
}

}  // namespace eventbus::log
