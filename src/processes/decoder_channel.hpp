// What it is: the shared memory between a sender and its decoder: what is asked for, and a queue of what was found.
// Who calls it: wal_decoder.cpp at one end, wal_decoding.cpp at the other.
// Never: outlives either of the two: who is left finds the other one gone.
#pragma once

#include <atomic>

#include "source/wal/source.hpp"

extern "C" {
#include "storage/dsm.h"
#include "storage/shm_mq.h"
}

namespace eventbus::processes {

// Where the segment begins; the queue follows, and the description (see describe()) behind it.
struct ChannelHead {
    std::atomic<bool> closed;            // the sender wants no more
    std::atomic<std::uint64_t> confirm;  // the slot need not keep what commits before,
    std::atomic<std::uint64_t> written;  // once standbys have all WAL up to there
    std::atomic<std::uint64_t> wanted;   // the decoder: the slot releases much once this is confirmed; 0: it need not
    Size description;                    // its length
};

inline constexpr Size queue_bytes = 1024 * 1024;

inline shm_mq* queue_of(ChannelHead* head) {
    return reinterpret_cast<shm_mq*>(reinterpret_cast<char*>(head) + MAXALIGN(sizeof(ChannelHead)));
}
inline char* description_of(ChannelHead* head) {
    return reinterpret_cast<char*>(queue_of(head)) + queue_bytes;
}
inline Size channel_bytes(Size description) {
    return MAXALIGN(sizeof(ChannelHead)) + queue_bytes + description;
}

// What a decoder is to do.
struct Task {
    char slot[NAMEDATALEN];
    bool exists;   // the slot does
    List* takers;  // of wal::Taker*
    List* topics;  // of char*: their patterns, UTF-8
    wal::Failures failures;
};
// palloc'd.
void describe(const Task& task, char** bytes, Size* length);
void read_description(const char* bytes, Size length, Task* task);

// A message begins with one of those.
enum class MessageKind : std::uint8_t {
    batch,   // BatchHead, and a wal::Batch: everything before a position has been sent
    words,   // WordsHead: why there is nothing now
    failed,  // FailedHead, and tables (Oid): the last one
};
struct BatchHead {
    MessageKind kind;
    bool more;                // there may be more at once
    bool handing;             // a large transaction is being handed on, and what was found lies within it
    wal::Position found;      // everything before it has been sent
    int64 large;              // wal::Batch's
    XLogRecPtr read;          // up to there the WAL has been read
    TimestampTz since;        // what was committed before has been sent, unless there is more:
    TimestampTz last_commit;  // then what was committed before this
};
struct WordsHead {
    MessageKind kind;
    bool starting;  // the slot is being made
    char words[256];
    char hint[256];
};
struct FailedHead {
    MessageKind kind;
    bool at_once;     // reading can continue at once, and will get further
    bool reading;     // it failed in reading, not in opening
    XLogRecPtr read;  // how far it had come
    wal::Failures failures;
    char words[512];
    char hint[256];
};

// False where the other end is gone. While the queue is full it calls meanwhile(), which waits for the latch.
bool send(shm_mq_handle* queue, const void* head, Size head_bytes, const void* body, Size body_bytes,
          void (*meanwhile)());

struct Inbox {
    shm_mq_handle* queue;
    MemoryContext memory;
    char* parts;  // of a message that is more than one
    Size total;
    Size got;
};
enum class Received : unsigned char {
    message,
    nothing,
    gone,
    too_large,  // there is no memory for it; `message` is its beginning, and the rest does not come as a message
};
// The next message, valid until the next call, and its length. Never waits.
Received receive(Inbox* inbox, const char** message, Size* length);

}  // namespace eventbus::processes
