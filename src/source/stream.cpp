#include "source/stream.hpp"

namespace eventbus::source {

void Stream::append(Chunk* chunk) {
    chunk->id = next_id++;
    chunk->held = chunk->bytes;
    chunk->next = nullptr;
    (first == nullptr ? first : last->next) = chunk;
    last = chunk;
}

std::size_t Stream::take_back(delivery::ChunkId chunk_id) {
    Chunk* before = nullptr;
    for (Chunk* chunk = first; chunk != nullptr; before = chunk, chunk = chunk->next) {
        if (chunk->id != chunk_id) continue;
        (before == nullptr ? first : before->next) = chunk->next;
        if (last == chunk) last = before;
        const std::size_t held = chunk->held;
        chunk->free(chunk);
        return held;
    }
    return 0;
}

bool Stream::first_unsettled(const delivery::Position& settled, const Chunk** chunk, std::uint32_t* index) const {
    for (const Chunk* at = first; at != nullptr; at = at->next) {
        if (at->id < settled.chunk) continue;
        *index = at->id == settled.chunk ? settled.index : 0;
        if (*index >= at->count) continue;
        *chunk = at;
        return true;
    }
    return false;
}

}  // namespace eventbus::source
