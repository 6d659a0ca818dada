// What it is: one stream of chunks to the dispatcher, whatever their source, until it has done with them.
// Who calls it: the sources, to hand events over and to say how far what was handed over is settled.
// Never: frees what the broker may still be sent.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/event.hpp"
#include "delivery/dispatcher.hpp"

namespace eventbus::source {

// Events that are handed over together, in the order in which they are to be offered. A source's chunks may hold more.
struct Chunk {
    Event* events;
    std::uint32_t count;
    std::size_t bytes;
    std::int64_t committed_after;  // none of them was visible then; microseconds since the Unix epoch, 0: not known
    void (*free)(Chunk* chunk);

    // The stream's, while the dispatcher has the chunk.
    delivery::ChunkId id;
    std::size_t held;  // bytes that it takes all in all
    Chunk* next;
};

// Plain data, so that it may stand in zeroed memory of any kind; begin() makes it a stream.
struct Stream {
    delivery::StreamId id;
    delivery::ChunkId next_id;
    Chunk* first;  // of those that the dispatcher has, oldest first
    Chunk* last;

    void begin(delivery::StreamId stream_id) {
        id = stream_id;
        next_id = 1;
    }
    bool is_empty() const { return first == nullptr; }
    // The chunk, which is about to be the dispatcher's, gets its number.
    void append(Chunk* chunk);
    // The dispatcher has done with it: it is freed. Returns what it held; 0 where there is none of that number.
    std::size_t take_back(delivery::ChunkId chunk_id);
    // The first event that is not settled; false where everything is that was handed over.
    bool first_unsettled(const delivery::Position& settled, const Chunk** chunk, std::uint32_t* index) const;
};

}  // namespace eventbus::source
