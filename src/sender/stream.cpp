#include "sender/stream.hpp"

#include "sender/sender.hpp"

namespace eventbus::sender {

void begin_stream(Stream* stream) {
    stream->id = ++sender.next_stream;
    stream->next_chunk = 1;
}

LentChunk* note_lent(Stream* stream, source::Chunk* chunk) {
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    auto* lent = static_cast<LentChunk*>(palloc(sizeof(LentChunk)));
    *lent = {stream->next_chunk++, chunk, chunk->bytes};
    stream->lent = lappend(stream->lent, lent);
    MemoryContextSwitchTo(before);
    return lent;
}

Size free_lent(Stream* stream, delivery::ChunkId id) {
    ListCell* cell;
    foreach (cell, stream->lent) {
        auto* lent = static_cast<LentChunk*>(lfirst(cell));
        if (lent->id != id) continue;
        const Size bytes = lent->bytes;
        stream->lent = foreach_delete_current(stream->lent, cell);
        source::free_chunk(lent->chunk);
        pfree(lent);
        return bytes;
    }
    return 0;
}

bool first_unsettled(const Stream* stream, const delivery::Position& settled, const source::Chunk** chunk,
                     uint32* index) {
    ListCell* cell;
    foreach (cell, stream->lent) {
        const auto* lent = static_cast<const LentChunk*>(lfirst(cell));
        if (lent->id < settled.chunk) continue;
        *index = lent->id == settled.chunk ? settled.index : 0;
        if (*index >= lent->chunk->count) continue;
        *chunk = lent->chunk;
        return true;
    }
    return false;
}

}  // namespace eventbus::sender
