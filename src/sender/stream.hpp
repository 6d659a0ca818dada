// What it is: one stream of chunks to the dispatcher, whatever their source, until it has done with them.
// Who calls it: the sources, and who asks how far a route has come in what was handed over.
// Never: frees what the broker may still be sent.
#pragma once

#include "delivery/dispatcher.hpp"
#include "source/chunk.hpp"

extern "C" {
#include "nodes/pg_list.h"
}

namespace eventbus::sender {

struct LentChunk {
    delivery::ChunkId id;
    source::Chunk* chunk;
    Size bytes;  // with the tickets that may come of it, where the stream's owner counts them
};

struct Stream {
    delivery::StreamId id;
    delivery::ChunkId next_chunk;
    List* lent;  // of LentChunk*, oldest first
};

// Gives it its number.
void begin_stream(Stream* stream);
// The chunk is the dispatcher's; its number is the next one.
LentChunk* note_lent(Stream* stream, source::Chunk* chunk);
// Frees the chunk, which the dispatcher has done with. Returns its bytes.
Size free_lent(Stream* stream, delivery::ChunkId id);
// The first event that is not settled; false where everything is that was handed over.
bool first_unsettled(const Stream* stream, const delivery::Position& settled, const source::Chunk** chunk,
                     uint32* index);

}  // namespace eventbus::sender
