// What it is: the sender's parts: its routes, the streams that feed them, and what it owes to the database.
// Who calls it: sender.cpp runs the loop; feed.cpp reads, routes.cpp follows the configuration, ledger.cpp writes.
// Never: is used by another process: there is one sender a process.
#pragma once

#include "counters/shared.hpp"
#include "delivery/dispatcher.hpp"
#include "postgres/steady.hpp"
#include "router/topic_index.hpp"
#include "sender/wal_feed.hpp"
#include "source/log/cursors.hpp"
#include "source/log/reader.hpp"

extern "C" {
#include "nodes/pg_list.h"
}

namespace eventbus::sender {

// Events lent to the dispatcher, until it gives them back.
struct Lent {
    delivery::ChunkId id;
    log::Chunk* chunk;
    Size bytes;  // with the tickets that may come of it
};

struct SenderDetour;
struct SenderRoute;

// An event that one of the stream's routes had settled before it came to the stream.
struct SettledBefore {
    EventId event;
    int32 route_id;
};

// Routes that stand at the same place, or near to it, share a stream: the log is read once for all of them. A detour
// has its own.
struct LogStream {
    delivery::StreamId id;
    log::Reader* reader;
    List* lent;  // of Lent*, oldest first
    delivery::ChunkId next_chunk;
    std::uint64_t seen_commits;  // of the database, when the running or last batch began
    SteadyTime looked_at;        // when that batch began
    bool must_look;              // the safety poll, or the beginning
    int64 skip_to;               // generation before which events are being left out; 0: none
    int64 skip_at;               // the generation that is being looked through (0: not begun),
    BlockNumber skip_block;      // and how far,
    std::uint32_t skip_file;     // in which file
    int64 skip_found;            // what is not settled there, whoever takes it
    int64 passed_before;         // generation before which nothing was found
    SenderDetour* detour;        // whose it is, or nullptr
    // Its routes, gathered when they were last looked for (takers.cpp).
    std::uint32_t arranged;  // Sender::arranged then
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

// Tells whether a detour's row would say anything new.
struct SavedDetour {
    std::uint64_t done_xmax;
    int done_count;
    bool in_batch;
    std::uint64_t batch_xmax;
    int batch_count;
    log::Position start;
    int64 settled_id;
    int64 first_generation;
    int settled_ahead;
    bool operator==(const SavedDetour&) const = default;
};

// A part of a route that the broker refuses for long, and that goes on beside it (delivery/README.md). It follows the
// route: its batches end where the route's do, so that they meet at the end of one.
struct SenderDetour {
    SenderRoute* route;
    delivery::DetourId number;
    const delivery::Detour* takes;
    LogStream* stream;
    log::StoredCursor stored;
    int64 first_generation;  // what stands before it was left out
    int64 skipping;          // events found so far that are about to be left out
    Progress progress;
    log::Cursor* from;        // as in SenderRoute
    log::XidSnapshot known;   // when it was loaded; empty where it began in this process
    bool ended;               // the two have met, and the route has taken the key again; it goes when
    log::XidSnapshot behind;  // the route's cursor has passed this
    SavedDetour saved;        // a detour that stands still costs no writes
    SavedDetour saving;       // what is being written,
    bool going;               // or that it goes
};

// Dead letters that an operator wants sent again: a stream of their own, so that they delay nothing.
struct Redelivery {
    delivery::StreamId stream;
    delivery::ChunkId next_chunk;
    MemoryContext memory;  // of the events under way
    Event* events;
    bool* refused;  // again: those stay dead letters, and may be asked for once more while others are under way
    int count;
    EventId last;         // of them
    SteadyTime retry_at;  // the next batch is tried again; 0: it need not be
};

struct GuestTexts {
    char* name;
    char* destination;
    char* topics;
    char* options;
};

// Tells whether a route's row would say anything new.
struct SavedRoute {
    log::Counters counters;  // without words
    bool operator==(const SavedRoute& other) const {
        const log::Counters& a = counters;
        const log::Counters& b = other.counters;
        return a.delivered == b.delivered && a.dead == b.dead && a.retries == b.retries && a.skipped == b.skipped &&
               a.last_error_at == b.last_error_at;
    }
};

struct SenderRoute {
    int32 id;
    char* name;
    char* destination;
    char* topics;
    char* options;
    GuestTexts guests;  // the four in UTF-8
    bool paused;
    uint32 version;               // of its row
    LogStream* stream;            // nullptr of one from the WAL,
    WalFeed* wal;                 // and this of one from the log
    char wal_words[512];          // what wal_state() said last; empty: nothing,
    TimestampTz wal_words_at;     // and since when
    char last_error[512];         // the last one of delivery or of the WAL; counters.last_error_at is its time
    std::uint64_t error_seen;     // the dispatcher's last one, by its number
    router::TopicFilter* filter;  // guest's, never freed but with the route
    log::StoredCursor stored;
    log::Cursor* from;  // what it had settled when it came to its stream, until the stream covers it; or nullptr
    bool idle;          // has delivered all it was lent, when streams.cpp last looked
    SavedRoute saved;
    SteadyTime saved_at;
    bool written;            // by the save that goes on
    List* detours;           // of SenderDetour*, by number
    log::Counters base;      // what the counters stood at when this sender began
    int64 first_generation;  // what stands before it was left out
    int64 skipping;          // events found so far that are about to be left out
    Progress progress;
    Redelivery* redelivery;           // or nullptr
    delivery::Moment redelivered_at;  // when the last of earlier ones arrived
    counters::Route* shared;          // or nullptr where shared memory has no room
    SteadyTime dead_told_at;          // when the log last heard of its dead letters
    bool seen;                        // by the configuration just read
    bool has_letters_to_send;         // says the configuration just read
};

// A route from the log whose row cannot be used.
struct ParkedRoute {
    int32 id;
    char* topics;
    int64 skipped_before;  // the generation up to which events were left out for it
};

struct Sender {
    Oid database;
    int32 broker_id;
    char* broker_name;
    char* broker_url;
    char* broker_options;
    uint32 broker_version;
    counters::Database* place;
    counters::Worker* worker;
    MemoryContext memory;
    const broker::Module* module;
    delivery::Dispatcher* dispatcher;
    delivery::Report* report;
    List* routes;     // of SenderRoute*
    List* parked;     // of ParkedRoute*
    List* streams;    // of LogStream*
    Size lent_bytes;  // of all streams
    delivery::StreamId next_stream;
    std::uint32_t arranged;       // rises when a route comes to a stream, leaves one, or takes other topics
    std::uint32_t configuration;  // the generation last read
    bool begin_again;             // a segment was rewritten under a reader: the next sender begins the batch anew
    bool keeps_wal;               // a route from the WAL is left out, and its changes wait
    bool unsaved;                 // some route has moved since the cursors were written
    SteadyTime shown_at;
    bool unshown;  // something has happened since the status was published
    std::uint64_t delivered_since_save;
    SteadyTime saved_at;
    bool cursors_locked;      // by somebody else, when they were to be written last,
    SteadyTime locked_since;  // and since when
    bool lock_told;
    long segments_locked_ms;  // a segment is locked: when to try again; 0: none was
    unsigned times_locked;
};

extern Sender sender;

// Dispatcher's number for a route's dead letters on their way again.
inline constexpr delivery::RouteId redelivery_bit = 0x80000000u;
inline delivery::RouteId redelivery_route(int32 id) {
    return static_cast<delivery::RouteId>(id) | redelivery_bit;
}

// routes.cpp: reads broker and routes anew. Ends the process where there is nothing left to serve.
void follow_broker_first();  // which broker it is
void follow_configuration();
// Whether the routes are as the configuration says by now. Asked once it is known what there is to read: an event that
// is published after a change of the routes, or with it, is judged by them as they are then.
bool knows_configuration();

// What has gone wrong on a route since it was last asked is its last error, which stays when it is over.
void note_errors(SenderRoute* route);

// feed.cpp: the sender leaves, and the next one begins with nothing but the cursors.
void begin_again();

// Ends the process after a last round for what has come, and the cursors; quick, whatever the broker does.
[[noreturn]] void leave();
// Reads what hungry streams can get. Returns true if there may be more at once.
bool feed_streams();
bool has_room(const LogStream* stream);  // it may be lent more
void give_back(const delivery::Report& report);

// takers.cpp: which routes of a stream take what, for all of them at once.
log::Filter filter_of(LogStream* stream);  // valid for one chunk
void lend(LogStream* stream, log::Chunk* chunk);
void free_takers(LogStream* stream);

// streams.cpp: which route reads on which stream.
LogStream* make_stream(log::Reader* reader);
// Gives routes that have just been loaded their streams.
void place_routes(List* fresh);
// Lets routes that have delivered all leave a stream that another route fills, and joins streams that have met.
void arrange_streams();
// Those routes go on by themselves, unless they are all that the stream has.
void split(LogStream* stream);
bool is_idle(const SenderRoute* route);
// What a route or detour has settled, if `place` is what its stream's cursor says.
log::Cursor cursor_with(const log::Cursor* from, const log::Cursor& place);
// The stream's place is written down: what it covers need not be remembered.
void forget_from(log::Cursor** from, const log::Cursor& place);
log::Cursor* remember_from(const log::Reader* reader, const log::Cursor& cursor);  // or nullptr

// activity.cpp: shows in pg_stat_activity what the sender does; returns the name of the wait that is about to begin.
const char* show_activity(bool busy);

// answers.cpp: tells those who wait for an event what has become of it.
void answer_waiters();

// skip.cpp: leaves events out of what the keeper wants to free. Returns true if there is more to do at once.
bool skip_ahead();
// Notes where a cursor stands now.
void note_progress(Progress* progress, const LogStream* stream, const delivery::Position& settled);

// detours.cpp: detours of routes, from their beginning to their end.
void load_detours(SenderRoute* route);
void forget_detours(SenderRoute* route);
void arrange_detours();
// What a detour takes, for its row.
log::DetourEvents detour_events(const delivery::Detour* takes, delivery::RouteId id, delivery::DetourId number);
delivery::Detour made_of(const log::DetourEvents& events);  // within call_guest
LogStream* detour_to_read();                                // or nullptr
// Between SPI_connect and SPI_finish; the route's own cursor has been saved.
void save_detours(SenderRoute* route);
void detours_saved(SenderRoute* route);  // and that has been committed

// redelivery.cpp: dead letters that are sent again.
void feed_redelivery(SenderRoute* route);  // takes the next ones
void note_refused_again(const delivery::DeadLetter& letter);
// Ends it, where some of what it has were discarded and nothing is under way; what is left is begun anew.
void end_if_discarded(SenderRoute* route);
// All that was lent on that stream has come back.
void give_back_given_up(delivery::StreamId stream);
long redeliveries_due();  // tries those again that were locked; in how many milliseconds the next one is due, or -1

// ledger.cpp: what must be written down.
log::Cursor cursor_at(const LogStream* stream, const delivery::Position& settled);
// `all`: also of routes that have only seen others' events go by since a moment ago.
void save_cursors(bool all = true);
void publish_status();

// letters.cpp: stores the report's dead letters. False where that failed for now: it is tried again, the report is kept
// until then, and no cursor is saved.
bool store_dead_letters();
bool letters_wait();
long letters_due();  // in how many milliseconds; negative: none waits

}  // namespace eventbus::sender
