// What it is: the log as a source: routes that stand at the same place share a stream, which is read once for all.
// Who calls it: sender.cpp and its parts through Source; the log_*.cpp and skip.cpp each other.
// Never: is seen by other sources.
#pragma once

#include "router/topic_index.hpp"
#include "sender/parked_key_row.hpp"
#include "source/log/cursors.hpp"
#include "source/log/reader.hpp"
#include "source/stream.hpp"

namespace eventbus::sender {

struct LogParkedKey;

// An event that one of the stream's routes had settled before it came to the stream.
struct SettledBefore {
    EventId event;
    int32 route_id;
};

// Routes that stand at the same place, or near to it, share a stream: the log is read once for all of them. A parked
// key has its own.
struct LogStream : source::Stream {
    log::Reader* reader;
    std::uint64_t seen_commits;  // of the database, when the running or last batch began
    SteadyTime looked_at;        // when that batch began
    bool must_look;              // the safety poll, or the beginning
    int64 skip_to;               // generation before which events are being left out; 0: none
    int64 skip_at;               // the generation that is being looked through (0: not begun),
    BlockNumber skip_block;      // and how far,
    std::uint32_t skip_file;     // in which file
    int64 skip_found;            // what is not settled there, whoever takes it
    int64 passed_before;         // generation before which nothing was found
    LogParkedKey* parked_key;    // whose it is, or nullptr
    // Its routes, gathered when they were last looked for (log_takers.cpp).
    std::uint32_t arranged;  // LogState::arranged then
    SenderRoute** takers;
    int taker_count;
    int come_with;              // of them, those that had settled something else when they came
    bool takes_all;             // one of the others takes every event
    router::TopicIndex* index;  // guest's; finds takers by their places
    SettledBefore* settled;     // of the chunk that is being read
    int settled_count, settled_room;
    Size tickets_each;       // that events of the last chunk may become, on average
    SteadyTime full_since;   // nothing was read since then for lack of room; 0: it is not so
    SteadyTime ahead_since;  // some routes wait for the reader to come to their place since then; 0: none do
};

// How far a cursor has got, and since when.
struct Progress {
    const LogStream* stream;
    delivery::Position settled;
    SteadyTime moved_at;
};

// Tells whether a parked key's row would say anything new.
struct SavedParkedKey {
    std::uint64_t done_xmax;
    int done_count;
    bool in_batch;
    std::uint64_t batch_xmax;
    int batch_count;
    log::Position start;
    int64 settled_id;
    int64 first_generation;
    int settled_ahead;
    bool operator==(const SavedParkedKey&) const = default;
};

// Its batches end where its route's do, so that they meet at the end of one.
struct LogParkedKey : ParkedKeyRow {
    log::Cursor cursor;
    LogStream* stream;
    int64 first_generation;  // what stands before it was left out
    int64 skipping;          // events found so far that are about to be left out
    Progress progress;
    log::Cursor* from;        // as in LogRoute
    log::XidSnapshot known;   // when it was loaded; empty where it began in this process
    log::XidSnapshot behind;  // it goes when the route's cursor has passed this
    SavedParkedKey saved;     // a parked key that is stalled costs no writes
    SavedParkedKey saving;    // what is being written
};

struct LogRoute : source::RouteFeed {
    log::Cursor cursor;  // as its row has it, or is about to
    LogStream* stream;
    log::Cursor* from;       // what it had settled when it came to its stream, until the stream covers it; or nullptr
    bool idle;               // has delivered all it was lent, when log_streams.cpp last looked
    List* parked_keys;       // of LogParkedKey*, by number
    int64 first_generation;  // what stands before it was left out
    int64 skipping;          // events found so far that are about to be left out
    Progress progress;
    log::Cursor put;  // what was put into its row, while that is being written
};
inline LogRoute* log_of(const source::Route* route) {
    return static_cast<LogRoute*>(route->feed);
}

// A route from the log whose row cannot be used.
struct UnusableRoute {
    int32 id;
    char* topics;
    int64 skipped_before;  // the generation up to which events were left out for it
};

struct LogState {
    List* routes;             // of SenderRoute*, those from the log
    List* unusable;           // of UnusableRoute*
    List* streams;            // of LogStream*
    Size lent_bytes;          // of all streams
    std::uint32_t arranged;   // rises when a route comes to a stream, leaves one, or takes other topics
    long segments_locked_ms;  // a segment is locked: when to try again; 0: none was
    unsigned times_locked;
};
extern LogState log_now;

// log_feed.cpp: reads what hungry streams can get. Returns true if there may be more at once.
bool feed_streams();
bool has_room(const LogStream* stream);  // it may be lent more
// A segment was rewritten under a reader: the sender leaves, and the next one begins the batch again.
void begin_again();

// log_answer.cpp: what has become of an event that somebody waits for.
counters::Answer answer_for_log(const SenderRoute* route, const counters::Wanted& wanted);

// log_takers.cpp: which routes of a stream take what, for all of them at once.
log::Filter filter_of(LogStream* stream);  // valid for one chunk
void lend(LogStream* stream, log::Chunk* chunk);
void free_takers(LogStream* stream);

// log_streams.cpp: which route reads on which stream.
LogStream* make_stream(log::Reader* reader);
// Gives routes that have just been loaded their streams.
void place_routes(std::span<source::Route* const> fresh);
// Lets routes that have delivered all leave a stream that another route fills, and joins streams that have met.
void arrange_streams();
bool is_skipping();  // some stream is
// Those routes resume by themselves, unless they are all that the stream has.
void split(LogStream* stream);
// What a route or parked key has settled, if `place` is what its stream's cursor says.
log::Cursor cursor_with(const log::Cursor* from, const log::Cursor& place);
// The stream's place is written down: what it covers need not be remembered.
void forget_from(log::Cursor** from, const log::Cursor& place);
log::Cursor* remember_from(const log::Reader* reader, const log::Cursor& cursor);  // or nullptr

// skip.cpp: leaves events out of what the keeper wants to free. Returns true if there is more to do at once.
bool skip_ahead();
// Notes where a cursor stands now.
void note_progress(Progress* progress, const LogStream* stream, const delivery::Position& settled);
log::Cursor cursor_at(const LogStream* stream, const delivery::Position& settled);

// log_parked_keys.cpp: parked keys of routes, from their beginning to their end.
void load_log_parked_keys(SenderRoute* route);
void forget_log_parked_keys(SenderRoute* route);
void tell_room();
bool park_key_of(SenderRoute* route);
void end_log_parked_keys();       // those that have caught up
LogStream* parked_key_to_read();  // or nullptr
// Between SPI_connect and SPI_finish; the route's own cursor has been saved.
void save_log_parked_keys(SenderRoute* route);
void log_parked_keys_saved(SenderRoute* route);  // and that has been committed

}  // namespace eventbus::sender
