// What it is: what routes from the WAL and their parked keys have no room for in memory: their files.
// Who calls it: wal_feed.cpp, wal_parked_keys.cpp, wal_decoding.cpp.
// Never: lets a file that cannot be written or read cost more than the route, or the parked key, whose it is.
//
// A file holds nothing that the slot does not hold as well: a cursor, and with it the slot, stands before what has not
// been lent yet. So one that fails loses nothing: who has it falls behind, what comes passes it by, and the decoder
// reads for it again later, from where it stands. That takes a decoder that begins again, which blocks all for as long
// as it reads what they have got: it is done when somebody wants events, not while a route is stalled anyway, and
// ever less often where files fail again.
#include <algorithm>

#include "postgres/attempt.hpp"
#include "postgres/encoding.hpp"
#include "postgres/wal_end.hpp"
#include "processes/process.hpp"
#include "sender/wal_parked_keys.hpp"
#include "sender/wal_state.hpp"

namespace eventbus::sender {

namespace {

constexpr int64 first_wait_ms = 1000;
constexpr int64 longest_wait_ms = 60000;
constexpr int64 tell_again_ms = 60000;

void note_failure(FileTrouble* trouble) {
    const SteadyTime now = steady_now();
    if (ms_have_passed(trouble->failed_at, now, 2 * longest_wait_ms)) trouble->times = 0;
    trouble->failed_at = now;
    trouble->retry_at = plus_ms(now, std::min(first_wait_ms << std::min(trouble->times, 10), longest_wait_ms));
    ++trouble->times;
}

void tell(WalFeed* feed, const char* hint) {
    FileTrouble* trouble = &feed->trouble;
    if (trouble->told_at != 0 && !ms_have_passed(trouble->told_at, trouble->failed_at, tell_again_ms)) return;
    trouble->told_at = trouble->failed_at;
    trouble->told = true;
    const char* when =
        feed->parked_key != 0 ? "once a file can be written" : "once it continues and has room for them in memory";
    ereport(WARNING, (errmsg("pg_eventbus: route \"%s\" to broker \"%s\" has fallen behind: %s", feed->route->name,
                             sender.broker_name, trouble->words),
                      errdetail("Its changes from %s on stay in the WAL, and are read again %s, in %ld s at the "
                                "earliest. Nothing is lost, and other routes continue.",
                                lsn_text(feed->from.lsn), when, (ms_until(trouble->retry_at) + 999) / 1000),
                      errhint("%s", hint != nullptr ? hint : "See that temporary files can be written and read.")));
}

// It has everything up to `from`.
void fall_behind(WalFeed* feed, const char* what, ErrorData* error, const wal::Position& from,
                 const wal::Position& until) {
    feed->behind = true;
    feed->from = from;
    feed->trouble.until = std::max(feed->trouble.until, until);
    const bool news = feed->trouble.words[0] == '\0';
    const char* whose = feed->parked_key != 0 ? "what is put aside of it" : "what waits for it";
    char words[sizeof feed->trouble.words];
    snprintf(words, sizeof words, "%s %s: %s", whose, what, error_words(error));
    copy_text(feed->trouble.words, sizeof feed->trouble.words, words);
    note_failure(&feed->trouble);
    sender.unshown = true;
    if (news) tell(feed, error->hint);
    FreeErrorData(error);
}

void end_file_if_empty(WalFeed* feed) {
    if (feed->file == nullptr || !wal::is_empty(feed->file)) return;
    wal::free_spool(feed->file);
    feed->file = nullptr;
}

void take_back_from_file(WalFeed* feed) {
    if (feed->file == nullptr) return;
    wal::take_back(feed->file);
    end_file_if_empty(feed);
}

struct Writing {
    WalFeed* feed;
    const Event* event;
};

void write(void* argument) {
    const auto* writing = static_cast<Writing*>(argument);
    WalFeed* feed = writing->feed;
    if (feed->file == nullptr) {
        feed->file = wal::make_spool(sender.memory);
        feed->read = {writing->event->id.lsn, writing->event->id.number - 1};
    }
    wal::write_event(feed->file, {}, *writing->event);
}

struct Reading {
    WalFeed* feed;
    WalLimits limits;
    wal::Chunk* chunk;
    wal::Position read;
};

void read(void* argument) {
    auto* reading = static_cast<Reading*>(argument);
    reading->chunk = wal::make_chunk(sender.memory);
    wal::Chunk* chunk = reading->chunk;
    wal::SpoolHead head;
    while (chunk->count < reading->limits.events && chunk->bytes < reading->limits.bytes &&
           wal::read_head(reading->feed->file, &head)) {
        Event event = wal::read_event(reading->feed->file, chunk);
        reading->read = event.id;
        wal::add_event(chunk, event, from_unix_us(event.published_at));
    }
}

// More than is kept in memory of a file.
void try_a_file(void*) {
    static const char nothing[32 * 1024] = {};
    wal::Spool* file = wal::make_spool(CurrentMemoryContext);
    Event event;
    event.payload = {nothing, sizeof nothing};
    wal::write_event(file, {}, event);
    wal::free_spool(file);
}

}  // namespace

ErrorData* try_wal_file() {
    return processes::survive(try_a_file, nullptr);
}

void put_into_wal_file(WalFeed* feed, const Event& event) {
    if (feed->behind || feed->error != nullptr) return;
    Writing writing = {feed, &event};
    feed->error = processes::survive(write, &writing);
}

void keep_what_came(WalFeed* feed, const wal::Position& before, const wal::Position& now) {
    if (feed->error != nullptr) {
        take_back_from_file(feed);
        ErrorData* error = feed->error;
        feed->error = nullptr;
        fall_behind(feed, "cannot be written into a file", error, std::max(feed->from, before), now);
    }
    if (feed->file != nullptr) wal::release(feed->file);
    feed->kept = feed->building != nullptr ? feed->building->count : 0;
}

void take_back_what_came(WalFeed* feed) {
    if (feed->error != nullptr) FreeErrorData(feed->error);
    feed->error = nullptr;
    take_back_from_file(feed);
    if (feed->building == nullptr) return;
    feed->building->count = feed->kept;
    if (feed->kept > 0) return;
    feed->building->free(feed->building);
    feed->building = nullptr;
}

wal::Chunk* read_wal_file(WalFeed* feed, const WalLimits& limits) {
    if (feed->file == nullptr || wal::is_read(feed->file)) return nullptr;
    Reading reading = {feed, limits, nullptr, feed->read};
    if (ErrorData* error = processes::survive(read, &reading)) {
        if (reading.chunk != nullptr) reading.chunk->free(reading.chunk);
        drop_wal_file(feed);
        fall_behind(feed, "cannot be read from its file", error, feed->read, handed_by_now());
        return nullptr;
    }
    feed->read = reading.read;
    end_file_if_empty(feed);
    return reading.chunk;
}

void drop_wal_file(WalFeed* feed) {
    if (feed->file != nullptr) wal::free_spool(feed->file);
    feed->file = nullptr;
}

long reads_again_in(const WalFeed* feed, bool wants_more) {
    return feed->behind && feed->file == nullptr && wants_more ? ms_until(feed->trouble.retry_at) : -1;
}

bool can_use_file(WalFeed* feed) {
    ErrorData* error = try_wal_file();
    if (error == nullptr) return true;
    FreeErrorData(error);
    feed->trouble.retry_at = plus_ms(steady_now(), first_wait_ms);
    return false;
}

void forget_wal_file(WalFeed* feed) {
    drop_wal_file(feed);
    feed->behind = false;
    feed->trouble = {};
}

void read_again(SenderRoute* route) {
    WalFeed* feed = wal_of(route);
    // What the file holds would come to a parked key before what it has missed.
    if (feed->file != nullptr && a_parked_key_is_behind(route)) {
        drop_wal_file(feed);
        feed->from = feed->read;
    }
    feed->behind = false;
    read_parked_keys_again(route);
}

void end_file_trouble(WalFeed* feed, const wal::Position& handed) {
    if (feed->trouble.words[0] == '\0' || feed->behind || handed < feed->trouble.until) return;
    feed->trouble.words[0] = '\0';
    feed->trouble.until = {};
    sender.unshown = true;
    if (!feed->trouble.told) return;
    feed->trouble.told = false;
    ereport(LOG, (errmsg("pg_eventbus: route \"%s\" to broker \"%s\" resumes: what it had missed was read again",
                         feed->route->name, sender.broker_name)));
}

}  // namespace eventbus::sender
