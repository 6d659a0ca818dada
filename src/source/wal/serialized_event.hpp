// What it is: an event in one piece: what has a fixed size, then its texts one behind the other.
// Who calls it: spool.cpp, for files; batch.cpp, for what the decoder sends to the sender.
// Never: outlives the build that has written it.
#pragma once

#include "core/event.hpp"
#include "postgres/prelude.hpp"

namespace eventbus::wal {

struct Packed {
    EventId id;
    int64 published_at;
    uint32 topic;  // lengths
    int32 key;     // -1: none
    uint32 payload;
    uint32 content_type;
    uint32 headers;
    uint32 error;
    bool is_bytes;
    bool is_timeless;
};

inline Packed pack(const Event& event) {
    return {event.id,
            event.published_at,
            static_cast<uint32>(event.topic.size()),
            event.key ? static_cast<int32>(event.key->size()) : -1,
            static_cast<uint32>(event.payload.size()),
            static_cast<uint32>(event.content_type.size()),
            static_cast<uint32>(event.headers.size()),
            static_cast<uint32>(event.error.size()),
            event.is_bytes,
            event.is_timeless};
}

inline Size length_of_texts(const Packed& packed) {
    return Size{packed.topic} + (packed.key < 0 ? 0 : static_cast<Size>(packed.key)) + packed.payload +
           packed.content_type + packed.headers + packed.error;
}

// Calls put(text) for each text, in their order.
template <class Put>
void put_texts(const Event& event, Put put) {
    put(event.topic);
    if (event.key) put(*event.key);
    put(event.payload);
    put(event.content_type);
    put(event.headers);
    put(event.error);
}

// The event, whose texts stand there.
inline Event unpack(const Packed& packed, const char* at) {
    auto take = [&at](Size size) {
        std::string_view text(at, size);
        at += size;
        return text;
    };
    Event event;
    event.id = packed.id;
    event.published_at = packed.published_at;
    event.topic = take(packed.topic);
    if (packed.key >= 0) event.key = take(static_cast<Size>(packed.key));
    event.payload = take(packed.payload);
    event.content_type = take(packed.content_type);
    event.headers = take(packed.headers);
    event.error = take(packed.error);
    event.is_bytes = packed.is_bytes;
    event.is_timeless = packed.is_timeless;
    return event;
}

}  // namespace eventbus::wal
