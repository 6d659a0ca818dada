// What it is: a sender's routes from the WAL: their decoder, and the events that are on their way.
// Who calls it: the sender's loop; WalSource for one route.
// Never: keeps the loop for longer than a few milliseconds, or ends it because of what decoding met.
#pragma once

#include "sender/sender.hpp"
#include "source/stream.hpp"
#include "source/wal/source.hpp"
#include "source/wal/spool.hpp"
#include "source/wal/wal_chunk.hpp"
#include "source/wal/wal_cursors.hpp"

namespace eventbus::sender {

// A file could not be written or read for a route or parked key (wal_files.cpp).
struct FileTrouble {
    SteadyTime failed_at;
    SteadyTime told_at;
    SteadyTime retry_at;
    int times;            // in short succession
    wal::Position until;  // it is over when everything before that has come
    bool told;
    char words[400];  // empty: there is none
};

// A route's part, or a parked key's. Its stream in the dispatcher is its own.
struct WalFeed : source::RouteFeed, source::Stream {
    SenderRoute* route;
    delivery::ParkedKeyId parked_key;  // 0: it is the route's
    wal::Selection selection;
    wal::Position from;  // what is not behind it is not for the route
    bool begun;          // a decoder has read for it,
    bool is_read;        // and the one that there is now does, as the route was when it began
    bool to_file;        // what comes goes to the file: the route has no room in memory
    bool behind;         // what comes is nobody's: it is read again, from `from` on
    ErrorData* error;    // in writing what has come last
    FileTrouble trouble;
    wal::Chunk* building;        // what has come, and is about to be lent; nullptr: nothing
    uint32 kept;                 // how much of it stays if the message at hand cannot be taken as a whole
    wal::Spool* file;            // or nullptr
    wal::Position read;          // up to where what was in the file has been taken out of it
    List* parked_keys;           // of WalParkedKey*, by number
    wal::Place place;            // as the row has it, or is about to
    wal::Position saved;         // as the row on disk has it,
    bool saved_of_slot;          // which says that it is a place in the slot
    delivery::Position settled;  // and since when it stands there
    SteadyTime moved_at;
};

inline WalFeed* wal_of(const source::Route* route) {
    return static_cast<WalFeed*>(route->feed);
}

// Loads the route's row.
void make_wal_feed(SenderRoute* route);
// And once more, the cursor having been set again.
void begin_wal_feed(SenderRoute* route);
void free_wal_feed(SenderRoute* route);
// Its options or topics have changed, or it was lost and may have been told to begin again.
void apply_to_wal_route(SenderRoute* route, bool changed);

// Hands on what there is, and reads on where there is room for more. Returns true if there may be more at once.
bool feed_wal();
void lend_wal(WalFeed* feed, wal::Chunk* chunk);

// wal_files.cpp: what waits in files. None of it ends in an error: a route or parked key whose file fails falls behind,
// and is read for again from the WAL, which is kept for it. At most that of the file's events, or nullptr.
struct WalLimits {
    uint32 events;
    Size bytes;
};
wal::Chunk* read_wal_file(WalFeed* feed, const WalLimits& limits);
void put_into_wal_file(WalFeed* feed, const Event& event);
// What is in the file is nobody's any more,
void drop_wal_file(WalFeed* feed);
void forget_wal_file(WalFeed* feed);  // nor is what it has missed
// What has come since is there to stay, or is taken back: `before` that it had everything, and now it has up to `now`.
void keep_what_came(WalFeed* feed, const wal::Position& before, const wal::Position& now);
void take_back_what_came(WalFeed* feed);
// How long until it may be read for again, in milliseconds; negative: it is not behind, or wants nothing yet.
long reads_again_in(const WalFeed* feed, bool wants_more);
// Whether a file can be had at all; nullptr: it can. And the same for a parked key, which has nothing else: where it
// cannot be had, it is asked again later.
ErrorData* try_wal_file();
bool can_use_file(WalFeed* feed);
// A decoder is about to read for the route and its parked keys.
void read_again(SenderRoute* route);
// Everything before `handed` has come; where that is what it had missed, its trouble is over.
void end_file_trouble(WalFeed* feed, const wal::Position& handed);

// The route or parked key is gone; what it was lent stays until the dispatcher gives it back.
void leave_wal_lent(WalFeed* feed);
bool give_back_wal_lent(WalFeed* feed, const delivery::Report::Finished& finished);
// The place before the first event that is lent and not settled; false where there is none.
bool first_unsettled(const WalFeed* feed, const delivery::Position& settled, wal::Position* at);
// Everything before it is with the routes; nothing where no decoder reads.
wal::Position handed_by_now();
// Everything before it has been lent to the route.
wal::Position lent_by_now(const SenderRoute* route);
// What commits before it is settled, on the route's parked keys, too.
wal::Position settled_by_now(const SenderRoute* route);
// How many events decoders have sent by now.
std::uint64_t events_from_wal();
// Whether something has come that nobody has read yet.
bool wal_has_more();
// In how many milliseconds to look again; negative: when woken.
long wal_wait();
bool give_back_wal(const delivery::Report::Finished& finished);
// Where the route stands that has settled what lies before `settled`.
void put_wal_place(SenderRoute* route, const delivery::Position& settled);
void wal_cursor_saved(SenderRoute* route);
// Lets go of WAL that no cursor needs any more.
void confirm_wal();
// The first thing that is not settled there, for people to read; the same text until the next call.
const char* place_text(const wal::Place& place);

}  // namespace eventbus::sender
