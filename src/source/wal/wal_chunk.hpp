// What it is: events of the WAL that are handed on together, and the memory that holds them.
// Who calls it: decoding fills it, the sender lends it to the dispatcher.
// Never: is changed once it has been lent.
#pragma once

#include "postgres/prelude.hpp"
#include "source/stream.hpp"

namespace eventbus::wal {

struct Chunk : source::Chunk {
    MemoryContext memory;  // holds everything of the chunk
    uint32 room;
    char* rest;  // of the last block
    Size rest_bytes;
    Size block;  // the last one's size
};

Chunk* make_chunk(MemoryContext parent);
char* room_for(Chunk* chunk, Size bytes);
// Takes the event as it is: what it points to is the chunk's already, or for ever.
void add_event(Chunk* chunk, const Event& event, TimestampTz committed_at);
// A copy of what it points to in the chunk's memory.
Event copy_event(Chunk* chunk, const Event& event);

}  // namespace eventbus::wal
