#include "sender/wal_parked_keys.hpp"

#include <algorithm>

#include "postgres/attempt.hpp"
#include "postgres/guest.hpp"
#include "processes/process.hpp"
#include "sender/parked_key_row.hpp"

namespace eventbus::sender {

struct WalParkedKey : ParkedKeyRow {
    WalFeed feed;          // its file holds what has not been lent yet
    wal::Position until;   // its route was there when a decoder began to read for it alone: it may not end before
    wal::Position behind;  // it goes when the route's cursor has passed this
    wal::Position saved;
    int saved_ahead;       // events that were settled though older ones were not
    wal::Position saving;  // what is being written
    int saving_ahead;
};

namespace {

constexpr WalLimits at_a_time{250, 256 * 1024};

WalParkedKey* make_parked_key(SenderRoute* route, delivery::ParkedKeyId number, const wal::Position& from) {
    auto* parked_key = static_cast<WalParkedKey*>(MemoryContextAllocZero(sender.memory, sizeof(WalParkedKey)));
    init_parked_key(parked_key, route, number);
    parked_key->feed.route = route;
    parked_key->feed.parked_key = number;
    parked_key->feed.begin(++sender.next_stream);
    parked_key->feed.from = parked_key->saved = from;
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    wal_of(route)->parked_keys = lappend(wal_of(route)->parked_keys, parked_key);
    MemoryContextSwitchTo(before);
    return parked_key;
}

bool takes(const WalParkedKey* parked_key, const Event& event) {
    bool taken = false;
    GuestError error;
    catch_guest(error, [&] { taken = parked_key->takes->takes(event); });
    return taken;
}

void free_parked_key(WalParkedKey* parked_key) {
    leave_wal_lent(&parked_key->feed);
    pfree(parked_key);
}

// Asked before anything is parted: what has been cannot be put together again. Where it cannot be had, the key blocks
// its route as it does for a while anyway.
bool files_can_be_written(const SenderRoute* route) {
    constexpr int again_ms = 1000;
    constexpr int tell_again_ms = 60000;
    static SteadyTime failed_at = 0;
    static SteadyTime told_at = 0;
    const SteadyTime now = steady_now();
    if (failed_at != 0 && !ms_have_passed(failed_at, now, again_ms)) return false;
    ErrorData* error = try_wal_file();
    failed_at = error == nullptr ? 0 : now;
    if (error == nullptr) return true;
    if (told_at == 0 || ms_have_passed(told_at, now, tell_again_ms)) {
        told_at = now;
        ereport(WARNING,
                (errmsg("pg_eventbus: route \"%s\" to broker \"%s\" waits for a key that the broker refuses: it "
                        "cannot be put aside: %s",
                        route->name, sender.broker_name, error_words(error)),
                 errhint("See that temporary files can be written; it is tried again every second.")));
    }
    FreeErrorData(error);
    return false;
}

// Where the parked key stands: at the oldest event that it has not settled, or where the WAL has been read, or with its
// route.
wal::Position place_of(const WalParkedKey* parked_key) {
    delivery::RouteStatus status = status_of(parked_key);
    wal::Position at;
    if (first_unsettled(&parked_key->feed, status.settled, &at)) return at;
    if (parked_key->feed.file != nullptr) return parked_key->feed.read;
    if (parked_key->feed.behind) return parked_key->feed.from;
    // After a restart its events come again, until its route's place: what is before those that have come is not known
    // to be delivered.
    wal::Position shown = std::max(parked_key->feed.from, handed_by_now());
    return std::min(shown, lent_by_now(parked_key->of));
}

void end_if_caught_up(WalParkedKey* parked_key, const wal::Position& handed) {
    const WalFeed& feed = parked_key->feed;
    if (parked_key->ended || feed.behind || !feed.is_empty() || feed.file != nullptr || handed < parked_key->until)
        return;
    end_key(parked_key);
    parked_key->behind = lent_by_now(parked_key->of);
}

}  // namespace

bool park_wal_key(SenderRoute* route) {
    if (!files_can_be_written(route)) return false;
    delivery::RouteStatus status =
        call_guest([&] { return sender.dispatcher->status(static_cast<delivery::RouteId>(route->id), 0); });
    wal::Position from;
    if (!first_unsettled(wal_of(route), status.settled, &from)) from = lent_by_now(route);
    WalParkedKey* parked_key = make_parked_key(route, next_number(wal_of(route)->parked_keys), from);
    begin_key(parked_key, parked_key->feed.id);
    for (const source::Chunk* chunk = wal_of(route)->first; chunk != nullptr; chunk = chunk->next) {
        if (chunk->id < status.settled.chunk) continue;
        uint32 first = chunk->id == status.settled.chunk ? status.settled.index : 0;
        for (uint32 i = first; i < chunk->count; ++i)
            if (takes(parked_key, chunk->events[i])) put_into_wal_file(&parked_key->feed, chunk->events[i]);
    }
    keep_what_came(&parked_key->feed, from, handed_by_now());
    return true;
}

void load_wal_parked_keys(SenderRoute* route) {
    load_keys(route, [](SenderRoute* of, delivery::ParkedKeyId number, delivery::StreamId* stream) -> ParkedKeyRow* {
        cursors::Row row;
        wal::Place place;
        (void)wal::load_place(of->id, static_cast<int32>(number), CurTransactionContext, &row, &place);
        WalParkedKey* parked_key = make_parked_key(of, number, place.at);
        parked_key->row = row;
        parked_key->until = wal_of(of)->place.at;
        *stream = parked_key->feed.id;
        return parked_key;
    });
}

void forget_wal_parked_keys(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) free_parked_key(static_cast<WalParkedKey*>(lfirst(cell)));
    list_free(wal_of(route)->parked_keys);
    wal_of(route)->parked_keys = NIL;
}

void show_to_parked_keys(SenderRoute* route, const Event& event) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) {
        auto* parked_key = static_cast<WalParkedKey*>(lfirst(cell));
        if (!parked_key->ended && takes(parked_key, event)) put_into_wal_file(&parked_key->feed, event);
    }
}

void keep_what_came_to_parked_keys(const SenderRoute* route, const wal::Position& before, const wal::Position& now) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys)
        keep_what_came(&static_cast<WalParkedKey*>(lfirst(cell))->feed, before, now);
}

void take_back_what_came_to_parked_keys(const SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) take_back_what_came(&static_cast<WalParkedKey*>(lfirst(cell))->feed);
}

void forget_files_of_parked_keys(const SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) forget_wal_file(&static_cast<WalParkedKey*>(lfirst(cell))->feed);
}

void show_past_to_parked_keys(SenderRoute* route, const Event& event) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) {
        auto* parked_key = static_cast<WalParkedKey*>(lfirst(cell));
        if (!parked_key->ended && event.id > parked_key->feed.from && takes(parked_key, event))
            put_into_wal_file(&parked_key->feed, event);
    }
}

void feed_wal_parked_keys(SenderRoute* route, const wal::Position& handed) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) {
        auto* parked_key = static_cast<WalParkedKey*>(lfirst(cell));
        // A key that is stalled is lent a little, and again when that has been delivered.
        if (parked_key->feed.file != nullptr && parked_key->feed.is_empty())
            if (wal::Chunk* chunk = read_wal_file(&parked_key->feed, at_a_time)) lend_wal(&parked_key->feed, chunk);
        end_file_trouble(&parked_key->feed, handed);
        end_if_caught_up(parked_key, handed);
    }
}

bool a_parked_key_waits(const SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) {
        const WalFeed& feed = static_cast<WalParkedKey*>(lfirst(cell))->feed;
        if (feed.file != nullptr && feed.is_empty()) return true;
    }
    return false;
}

bool a_parked_key_is_behind(const SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys)
        if (static_cast<WalParkedKey*>(lfirst(cell))->feed.behind) return true;
    return false;
}

long parked_keys_read_again_in(const SenderRoute* route) {
    long least = -1;
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) {
        WalFeed* feed = &static_cast<WalParkedKey*>(lfirst(cell))->feed;
        long in = reads_again_in(feed, feed->is_empty());
        if (in == 0 && !can_use_file(feed)) in = ms_until(feed->trouble.retry_at);
        if (in >= 0) least = least < 0 ? in : std::min(least, in);
    }
    return least;
}

const char* file_trouble_of_parked_keys(const SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) {
        const FileTrouble& trouble = static_cast<WalParkedKey*>(lfirst(cell))->feed.trouble;
        if (trouble.words[0] != '\0') return trouble.words;
    }
    return "";
}

void close_wal_parked_keys(SenderRoute* route, const wal::Position& handed) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) {
        WalFeed* feed = &static_cast<WalParkedKey*>(lfirst(cell))->feed;
        if (!feed->behind) feed->from = std::max(feed->from, handed);
    }
}

void read_parked_keys_again(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) {
        auto* parked_key = static_cast<WalParkedKey*>(lfirst(cell));
        if (parked_key->feed.behind) parked_key->until = std::max(parked_key->until, wal_of(route)->from);
        parked_key->feed.behind = false;
    }
}

bool give_back_to_parked_keys(SenderRoute* route, const delivery::Report::Finished& finished) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys)
        if (give_back_wal_lent(&static_cast<WalParkedKey*>(lfirst(cell))->feed, finished)) return true;
    return false;
}

void save_wal_parked_keys(SenderRoute* route) {
    const wal::Position routes = wal_of(route)->place.at;
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) {
        auto* parked_key = static_cast<WalParkedKey*>(lfirst(cell));
        parked_key->going = parked_key->ended && routes >= parked_key->behind;
        parked_key->saving = parked_key->saved;
        parked_key->saving_ahead = parked_key->saved_ahead;
        if (parked_key->going) {
            if (parked_key->row.exists) cursors::remove(parked_key->row);
            continue;
        }
        wal::Position place = place_of(parked_key);
        cursors::ParkedEvents events = events_of(parked_key);
        bool same = place == parked_key->saved && events.settled.count == parked_key->saved_ahead;
        if (parked_key->row.exists && same) continue;
        parked_key->feed.place = wal_of(route)->place;
        parked_key->feed.place.at = place;
        (void)wal::save_place(&parked_key->row, parked_key->feed.place, &events);
        parked_key->saving = place;
        parked_key->saving_ahead = events.settled.count;
    }
}

void wal_parked_keys_saved(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) {
        auto* parked_key = static_cast<WalParkedKey*>(lfirst(cell));
        parked_key->saved = parked_key->saving;
        parked_key->saved_ahead = parked_key->saving_ahead;
        if (!parked_key->going) continue;
        remove_key(parked_key);
        wal_of(route)->parked_keys = foreach_delete_current(wal_of(route)->parked_keys, cell);
        free_parked_key(parked_key);
    }
}

wal::Position first_of_parked_keys(const SenderRoute* route, const wal::Position& from) {
    wal::Position found = from;
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) {
        auto* parked_key = static_cast<const WalParkedKey*>(lfirst(cell));
        if (!parked_key->ended) found = std::min(found, parked_key->feed.from);
    }
    return found;
}

wal::Position settled_on_parked_keys(const SenderRoute* route, const wal::Position& settled) {
    wal::Position found = settled;
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys)
        found = std::min(found, place_of(static_cast<WalParkedKey*>(lfirst(cell))));
    return found;
}

wal::Position least_of_parked_keys(const SenderRoute* route, const wal::Position& least) {
    wal::Position found = least;
    ListCell* cell;
    foreach (cell, wal_of(route)->parked_keys) found = std::min(found, static_cast<WalParkedKey*>(lfirst(cell))->saved);
    return found;
}

}  // namespace eventbus::sender
