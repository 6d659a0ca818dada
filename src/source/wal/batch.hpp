// What it is: events on their way from the process that decodes them to the sender, one message for many.
// Who calls it: decoding adds to one, the sender reads it.
// Never: is read by another build than has written it; both are processes of one server.
#pragma once

#include "source/wal/serialized_event.hpp"

extern "C" {
#include "datatype/timestamp.h"
}

namespace eventbus::wal {

struct Batch {
    MemoryContext memory;  // of what follows
    char* bytes;
    Size length;
    Size room;
    Event last;   // that was added
    int64 large;  // the change that the last one was that takes much memory; 0: none does
};

// What takes more may be too much.
inline constexpr Size large_event = 1024 * 1024;

Batch* make_batch(MemoryContext memory);
// Also gives back what a large event has taken.
void clear(Batch* batch);
// The taker with that number gets the event; `past`: only for its parked keys. What the event before points to, and
// this one as well, is not repeated. `change` is what became the event: see Failures.
void add(Batch* batch, int taker, bool past, const Event& event, int64 change, TimestampTz committed_at);

struct BatchReader {
    const char* at;
    const char* end;
    int taker;
    bool past;
    TimestampTz committed_at;
    Event event;  // what it points to is the message's
};
// The next event; false where there is none.
bool next(BatchReader* reader);

}  // namespace eventbus::wal
