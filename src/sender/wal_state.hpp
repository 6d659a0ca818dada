// What it is: what a sender's routes from the WAL have in common: the decoder, and why there is none.
// Who calls it: wal_feed.cpp, wal_decoding.cpp, wal_chunks.cpp, wal_files.cpp and wal_source.cpp.
// Never: is seen by others.
#pragma once

#include "core/backoff.hpp"
#include "processes/decoder_channel.hpp"
#include "processes/process.hpp"
#include "sender/wal_feed.hpp"

namespace eventbus::sender {

struct WalState {
    List* routes;                     // of SenderRoute*, those from the WAL
    bool keeps_all;                   // one is left out, and its changes wait
    wal::State state;                 // closed: nobody decodes for us
    BackgroundWorkerHandle* decoder;  // also while it leaves; nullptr: there is none
    dsm_segment* channel;             // nullptr: closed
    processes::ChannelHead* head;     // in it
    processes::Inbox inbox;
    MemoryContext memory;  // of the above, but the handle
    SenderRoute** takers;  // by the numbers that the decoder knows them by
    int taker_count;
    wal::Position handed;      // everything before it is with the routes
    XLogRecPtr read;           // how far the WAL has been read for that
    std::uint64_t events;      // that have come by now
    bool unread;               // the queue was left before its end
    bool changed;              // routes have come or gone since the decoder began
    bool awaited;              // a full route is given a moment to move
    bool at_end;               // all that has been committed is with the routes,
    TimestampTz handed_until;  // or, where it is not, what was committed before
    List* left;  // of Stream*: of routes that are gone, while the broker may still be sent what they were lent
    SteadyTime confirmed_at;
    XLogRecPtr confirmed;  // what was asked for last
    XLogRecPtr tried;      // how far the WAL had been read when it was last looked what could be asked for
    bool confirm_waits;    // it was too early to look again, and much WAL could go
    bool makes_slot;       // the decoder does, and
    char words[256];       // whom it waits for
    char trouble[512];     // why it is stalled; empty: it is not
    char hint[256];
    XLogRecPtr failed_at;    // where reading failed; the trouble is over behind that. 0: it was not in reading
    SteadyTime retry_at;     // 0: at once
    SteadyTime looked_at;    // when the slot was looked at last while nobody hears the decoder
    SteadyTime ended_at;     // when a decoder ended last without a word,
    int times_ended;         // and how many did in short succession
    bool starved;            // no background worker slot is free for it
    wal::Failures failures;  // of all decoders that there were
    Backoff backoff{Backoff::Duration(1000), Backoff::Duration(30000)};  // ms
};

extern WalState wal_now;

inline bool is_closed() {
    return wal_now.state == wal::State::closed;
}

inline bool is_lost(const SenderRoute* route) {
    return wal_of(route)->place.lost;
}

// wal_decoding.cpp
bool is_reading();
// The decoder leaves; what it has found and nobody has taken is found again.
void close_decoder();
void open_decoder_if_due();
// While one leaves the next one waits.
bool a_decoder_leaves();
// While routes have no room nobody takes what the decoder has sent, or hears that it has ended, which the server may
// have seen to when it gave up the slot. True: it was, and the routes are lost.
bool notice_lost_slot();
// Takes what the decoder has sent, while routes have room. Returns true if there may be more at once.
bool receive_from_decoder(const WalLimits& limits);

// wal_feed.cpp: the route with that number gets an event.
void take_wal_event(SenderRoute* route, const wal::BatchReader& found);
bool is_full(const WalFeed* feed, const WalLimits& limits);

}  // namespace eventbus::sender
