// What it is: the sender's parts: its routes, the streams that feed them, and what it owes to the database.
// Who calls it: sender.cpp runs the loop; the sources read, configuration.cpp applies the configuration, progress.cpp writes.
// Never: is used by another process: there is one sender a process.
#pragma once

#include "counters/shared.hpp"
#include "cursors/cursor_row.hpp"
#include "delivery/dispatcher.hpp"
#include "postgres/steady.hpp"
#include "source/source.hpp"

extern "C" {
#include "nodes/pg_list.h"
}

namespace eventbus::sender {

using source::Source;

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
    cursors::Counters counters;  // without words
    bool operator==(const SavedRoute& other) const {
        const cursors::Counters& a = counters;
        const cursors::Counters& b = other.counters;
        return a.delivered == b.delivered && a.dead == b.dead && a.retries == b.retries && a.skipped == b.skipped &&
               a.last_error_at == b.last_error_at;
    }
};

struct SenderRoute : source::Route {
    char* name;
    char* destination;
    char* topics;
    char* options;
    GuestTexts guests;  // the four in UTF-8
    bool paused;
    uint32 version;               // of its row
    char source_words[512];       // what Source::state() said last; empty: nothing,
    TimestampTz source_words_at;  // and since when
    char last_error[512];         // the last one of delivery or of the source; counters.last_error_at is its time
    std::uint64_t error_seen;     // the dispatcher's last one, by its number
    router::TopicFilter* filter;  // guest's, never freed but with the route
    cursors::Row row;
    SavedRoute saved;
    SteadyTime saved_at;
    bool written;                     // by the save under way
    cursors::Counters base;           // what the counters stood at when this sender began
    Redelivery* redelivery;           // or nullptr
    delivery::Moment redelivered_at;  // when the last of earlier ones arrived
    counters::Route* shared;          // or nullptr where shared memory has no room
    SteadyTime dead_told_at;          // when the log last heard of its dead letters
    bool seen;                        // by the configuration just read
    bool has_letters_to_send;         // says the configuration just read
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
    List* routes;  // of SenderRoute*
    delivery::StreamId next_stream;
    std::uint32_t configuration;  // the generation last read
    bool begin_again;             // the next sender begins with nothing but the cursors
    bool unsaved;                 // some route has moved since the cursors were written
    SteadyTime shown_at;
    bool unshown;  // something has happened since the status was published
    std::uint64_t delivered_since_save;
    SteadyTime saved_at;
    bool cursors_locked;      // by somebody else, when they were to be written last,
    SteadyTime locked_since;  // and since when
    bool lock_told;
};

extern Sender sender;

// Dispatcher's number for a route's dead letters on their way again.
inline constexpr delivery::RouteId redelivery_bit = 0x80000000u;
inline delivery::RouteId redelivery_route(int32 id) {
    return static_cast<delivery::RouteId>(id) | redelivery_bit;
}

std::span<Source* const> sources();
Source* find_source(const char* name);  // nullptr: there is none of that name
Source* log_source();
Source* wal_source();

inline SenderRoute* of_sender(source::Route* route) {
    return static_cast<SenderRoute*>(route);
}
inline const SenderRoute* of_sender(const source::Route* route) {
    return static_cast<const SenderRoute*>(route);
}

SenderRoute* find_route(int32 id);  // or nullptr
delivery::RouteStatus status_of(const SenderRoute* route);
bool is_idle(const SenderRoute* route);

// configuration.cpp: reads broker and routes again. Ends the process where there is nothing left to serve.
void read_broker_first();  // which broker it is
void apply_configuration();
// Whether the routes are as the configuration says by now. Asked once it is known what there is to read: an event that
// is published after a change of the routes, or with it, is judged by them as they are then.
bool knows_configuration();

// What has gone wrong on a route since it was last asked is its last error, which stays when it is over.
void note_errors(SenderRoute* route);

// Ends the process after a last round for what has come, and the cursors; quick, whatever the broker does.
[[noreturn]] void leave();
// The dispatcher has done with what the report names.
void give_back(const delivery::Report& report);

// activity.cpp: shows in pg_stat_activity what the sender does; returns the name of the wait that is about to begin.
const char* show_activity(bool busy);

// wait_answers.cpp: tells those who wait for an event what has become of it.
void answer_waiters();

// redelivery.cpp: dead letters that are sent again.
void feed_redelivery(SenderRoute* route);  // takes the next ones
void note_refused_again(const delivery::DeadLetter& letter);
// Ends it, where some of what it has were discarded and nothing is under way; what is left is begun again.
void end_if_discarded(SenderRoute* route);
// All that was lent on that stream has come back: the next ones are taken.
void take_back_letters(delivery::StreamId stream);
long redeliveries_due();  // tries those again that were locked; in how many milliseconds the next one is due, or -1

// progress.cpp: what must be written down.
// `all`: also of routes that have only seen others' events go by since a moment ago.
void save_cursors(bool all = true);
void publish_status();

// letters.cpp: stores the report's dead letters. False where that failed for now: it is tried again, the report is kept
// until then, and no cursor is saved.
bool store_dead_letters();
bool letters_wait();
long letters_due();  // in how many milliseconds; negative: none waits

}  // namespace eventbus::sender
