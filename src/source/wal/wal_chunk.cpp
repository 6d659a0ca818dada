#include "source/wal/wal_chunk.hpp"

#include <algorithm>

#include "source/wal/serialized_event.hpp"

namespace eventbus::wal {

namespace {

// Events that trickle in come one a chunk, and a route that stands keeps thousands of them.
constexpr Size first_block = 1024;
constexpr Size largest_block = 64 * 1024;
constexpr uint32 first_room = 8;

}  // namespace

Chunk* make_chunk(MemoryContext parent) {
    MemoryContext memory = AllocSetContextCreate(parent, "pg_eventbus chunk of WAL", ALLOCSET_SMALL_SIZES);
    auto* chunk = static_cast<Chunk*>(MemoryContextAllocZero(memory, sizeof(Chunk)));
    chunk->memory = memory;
    chunk->free = [](source::Chunk* of) { MemoryContextDelete(static_cast<Chunk*>(of)->memory); };
    chunk->room = first_room;
    chunk->events = static_cast<Event*>(MemoryContextAlloc(memory, sizeof(Event) * first_room));
    return chunk;
}

char* room_for(Chunk* chunk, Size bytes) {
    if (bytes > chunk->rest_bytes) {
        chunk->block = std::clamp(2 * chunk->block, first_block, largest_block);
        Size block = std::max(bytes, chunk->block);
        chunk->rest = static_cast<char*>(MemoryContextAllocHuge(chunk->memory, block));
        chunk->rest_bytes = block;
    }
    char* room = chunk->rest;
    chunk->rest += bytes;
    chunk->rest_bytes -= bytes;
    chunk->bytes += bytes;
    return room;
}

void add_event(Chunk* chunk, const Event& event, TimestampTz committed_at) {
    if (chunk->count == chunk->room) {
        chunk->room *= 2;
        chunk->events = static_cast<Event*>(repalloc_huge(chunk->events, sizeof(Event) * chunk->room));
    }
    if (chunk->count == 0) chunk->committed_after = to_unix_us(committed_at);
    new (&chunk->events[chunk->count++]) Event(event);
}

Event copy_event(Chunk* chunk, const Event& event) {
    Packed packed = pack(event);
    char* texts = room_for(chunk, length_of_texts(packed));
    char* at = texts;
    put_texts(event, [&at](std::string_view text) {
        text.copy(at, text.size());
        at += text.size();
    });
    return unpack(packed, texts);
}

}  // namespace eventbus::wal
