#include "source/wal/batch.hpp"

#include <algorithm>

namespace eventbus::wal {

namespace {

constexpr Size first_room = 256 * 1024;
constexpr Size most_kept = 4 * 1024 * 1024;

// What stands before each event; what it points to follows, unless that is the event's before.
struct Head {
    int32 taker;
    bool past;
    bool again;
    TimestampTz committed_at;
};

void wait_for_space(Batch* batch, Size bytes) {
    if (batch->length + bytes <= batch->room) return;
    Size room = std::max(batch->length + bytes, batch->room * 2);
    batch->bytes = static_cast<char*>(batch->bytes == nullptr ? MemoryContextAllocHuge(batch->memory, room)
                                                              : repalloc_huge(batch->bytes, room));
    batch->room = room;
}

void put(Batch* batch, const void* bytes, Size length) {
    if (length > 0) memcpy(batch->bytes + batch->length, bytes, length);
    batch->length += length;
}

bool same_place(std::string_view a, std::string_view b) {
    return a.data() == b.data() && a.size() == b.size();
}

// Whether it is the event before, for another taker.
bool is_again(const Event& event, const Event& last) {
    return event.id == last.id && event.published_at == last.published_at && same_place(event.topic, last.topic) &&
           same_place(event.payload, last.payload) && same_place(event.error, last.error);
}

}  // namespace

Batch* make_batch(MemoryContext memory) {
    auto* batch = static_cast<Batch*>(MemoryContextAllocZero(memory, sizeof(Batch)));
    batch->memory = memory;
    new (&batch->last) Event();
    wait_for_space(batch, first_room);
    return batch;
}

void clear(Batch* batch) {
    batch->length = 0;
    batch->last = Event();
    batch->large = 0;
    if (batch->room <= most_kept) return;
    pfree(batch->bytes);
    batch->bytes = nullptr;
    batch->room = 0;
    wait_for_space(batch, first_room);
}

void add(Batch* batch, int taker, bool past, const Event& event, int64 change, TimestampTz committed_at) {
    Head head = {taker, past, batch->length > 0 && is_again(event, batch->last), committed_at};
    Packed packed = pack(event);
    wait_for_space(batch, sizeof head + (head.again ? 0 : sizeof packed + length_of_texts(packed)));
    put(batch, &head, sizeof head);
    if (head.again) return;
    put(batch, &packed, sizeof packed);
    put_texts(event, [&](std::string_view text) { put(batch, text.data(), text.size()); });
    batch->last = event;
    if (length_of_texts(packed) > large_event) batch->large = change;
}

bool next(BatchReader* reader) {
    if (reader->at == reader->end) return false;
    Head head;
    memcpy(&head, reader->at, sizeof head);
    reader->at += sizeof head;
    reader->taker = head.taker;
    reader->past = head.past;
    reader->committed_at = head.committed_at;
    if (head.again) return true;
    Packed packed;
    memcpy(&packed, reader->at, sizeof packed);
    reader->at += sizeof packed;
    reader->event = unpack(packed, reader->at);
    reader->at += length_of_texts(packed);
    return true;
}

}  // namespace eventbus::wal
