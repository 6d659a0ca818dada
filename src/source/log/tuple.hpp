// What it is: tuples copied out of the log's pages, and events made of them.
// Who calls it: the reader.
// Never: looks for a page.
#pragma once

#include <cstring>

#include "source/log/reader.hpp"

namespace eventbus::log {

// The first three columns are fixed-width and never null, so they stand at fixed places.
inline const char* raw_columns(HeapTupleHeader tuple) {
    return reinterpret_cast<const char*>(tuple) + tuple->t_hoff;
}

inline int64 raw_id(HeapTupleHeader tuple) {
    int64 id;
    std::memcpy(&id, raw_columns(tuple), sizeof id);
    return id;
}

inline uint64 raw_xid(HeapTupleHeader tuple) {
    uint64 xid;
    std::memcpy(&xid, raw_columns(tuple) + sizeof(int64), sizeof xid);
    return xid;
}

inline TimestampTz raw_published_at(HeapTupleHeader tuple) {
    TimestampTz time;
    std::memcpy(&time, raw_columns(tuple) + 2 * sizeof(int64), sizeof time);
    return time;
}

// In the database's encoding; where it is not stored as it is, a palloc'd copy.
std::string_view raw_topic(HeapTupleHeader tuple);

// Id, topic and key, in UTF-8; of a copy that belongs to the caller, or of a tuple on a page: nothing is looked up
// elsewhere, for topics and keys are too short to be stored apart.
Event heading_of(HeapTupleHeader tuple);

struct TupleCopy {
    Position at;
    uint32 length;
    HeapTupleHeader data;
};

struct TupleCopies {
    MemoryContext memory;
    TupleCopy* items;
    uint32 count, room;
    char* free;
    Size free_bytes;
    Size block;  // the last one's size
};

void copy_tuple(TupleCopies* copies, HeapTuple tuple, const Position& at);

// Makes events of the copies, in id order, dropping those that nobody wants. Stops when their payloads reach
// most_bytes (but not before the first); *next is then where the first one left out stands.
Chunk* make_chunk(TupleCopies* copies, const Filter& filter, Size most_bytes, Position* next);

}  // namespace eventbus::log
