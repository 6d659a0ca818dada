// What it is: events of a source that are handed on together, and the memory that holds them.
// Who calls it: the sources make them, the sender hands them to the dispatcher.
// Never: is changed once it has been handed over.
#pragma once

#include "core/event.hpp"
#include "postgres/prelude.hpp"

namespace eventbus::source {

struct Chunk {
    MemoryContext memory;  // holds everything of the chunk
    Event* events;
    uint32 count;
    Size bytes;
    TimestampTz committed_after;  // its events were not visible then; 0: not known
};

inline void free_chunk(Chunk* chunk) {
    MemoryContextDelete(chunk->memory);
}

}  // namespace eventbus::source
