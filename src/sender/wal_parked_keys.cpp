#include "sender/wal_parked_keys.hpp"

#include <algorithm>

#include "postgres/attempt.hpp"
#include "postgres/guest.hpp"
#include "processes/process.hpp"
#include "sender/parked_key_row.hpp"

namespace eventbus::sender {

struct WalDetour : ParkedKey {
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

WalDetour* make_detour(SenderRoute* route, delivery::DetourId number, const wal::Position& from) {
    auto* detour = static_cast<WalDetour*>(MemoryContextAllocZero(sender.memory, sizeof(WalDetour)));
    init_parked_key(detour, route, number);
    detour->feed.route = route;
    detour->feed.detour = number;
    detour->feed.begin(++sender.next_stream);
    detour->feed.from = detour->saved = from;
    detour->stored.cursor.done = route->stored.cursor.done;
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    wal_of(route)->detours = lappend(wal_of(route)->detours, detour);
    MemoryContextSwitchTo(before);
    return detour;
}

bool takes(const WalDetour* detour, const Event& event) {
    bool taken = false;
    GuestError error;
    catch_guest(error, [&] { taken = detour->takes->takes(event); });
    return taken;
}

void free_detour(WalDetour* detour) {
    leave_wal_lent(&detour->feed);
    pfree(detour);
}

// Asked before anything is parted: what has been cannot be put together again. Where it cannot be had, the key holds up
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

// Where the detour stands: at the oldest event that it has not settled, or where the WAL has been read, or with its
// route.
wal::Position place_of(const WalDetour* detour) {
    delivery::RouteStatus status = status_of(detour);
    wal::Position at;
    if (first_unsettled(&detour->feed, status.settled, &at)) return at;
    if (detour->feed.file != nullptr) return detour->feed.read;
    if (detour->feed.behind) return detour->feed.from;
    // After a restart its events come again, until its route's place: what is before those that have come is not known
    // to be delivered.
    wal::Position shown = std::max(detour->feed.from, handed_by_now());
    return std::min(shown, lent_by_now(detour->of));
}

void end_if_caught_up(WalDetour* detour, const wal::Position& handed) {
    const WalFeed& feed = detour->feed;
    if (detour->ended || feed.behind || !feed.is_empty() || feed.file != nullptr || handed < detour->until) return;
    end_key(detour);
    detour->behind = lent_by_now(detour->of);
}

}  // namespace

bool begin_wal_detour(SenderRoute* route) {
    if (!files_can_be_written(route)) return false;
    delivery::RouteStatus status =
        call_guest([&] { return sender.dispatcher->status(static_cast<delivery::RouteId>(route->id), 0); });
    wal::Position from;
    if (!first_unsettled(wal_of(route), status.settled, &from)) from = lent_by_now(route);
    WalDetour* detour = make_detour(route, next_number(wal_of(route)->detours), from);
    begin_key(detour, detour->feed.id);
    for (const source::Chunk* chunk = wal_of(route)->first; chunk != nullptr; chunk = chunk->next) {
        if (chunk->id < status.settled.chunk) continue;
        uint32 first = chunk->id == status.settled.chunk ? status.settled.index : 0;
        for (uint32 i = first; i < chunk->count; ++i)
            if (takes(detour, chunk->events[i])) put_into_wal_file(&detour->feed, chunk->events[i]);
    }
    keep_what_came(&detour->feed, from, handed_by_now());
    return true;
}

void load_wal_detours(SenderRoute* route) {
    load_keys(route, true,
              [](SenderRoute* of, delivery::DetourId number, const log::StoredCursor& stored,
                 delivery::StreamId* stream) -> ParkedKey* {
                  WalDetour* detour = make_detour(of, number, stored.cursor.wal.at);
                  detour->until = of->stored.cursor.wal.at;
                  *stream = detour->feed.id;
                  return detour;
              });
}

void forget_wal_detours(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) free_detour(static_cast<WalDetour*>(lfirst(cell)));
    list_free(wal_of(route)->detours);
    wal_of(route)->detours = NIL;
}

void show_to_detours(SenderRoute* route, const Event& event) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) {
        auto* detour = static_cast<WalDetour*>(lfirst(cell));
        if (!detour->ended && takes(detour, event)) put_into_wal_file(&detour->feed, event);
    }
}

void keep_what_came_to_detours(const SenderRoute* route, const wal::Position& before, const wal::Position& now) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) keep_what_came(&static_cast<WalDetour*>(lfirst(cell))->feed, before, now);
}

void take_back_what_came_to_detours(const SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) take_back_what_came(&static_cast<WalDetour*>(lfirst(cell))->feed);
}

void forget_files_of_detours(const SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) forget_wal_file(&static_cast<WalDetour*>(lfirst(cell))->feed);
}

void show_past_to_detours(SenderRoute* route, const Event& event) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) {
        auto* detour = static_cast<WalDetour*>(lfirst(cell));
        if (!detour->ended && event.id > detour->feed.from && takes(detour, event))
            put_into_wal_file(&detour->feed, event);
    }
}

void feed_wal_detours(SenderRoute* route, const wal::Position& handed) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) {
        auto* detour = static_cast<WalDetour*>(lfirst(cell));
        // A key that stands still is lent a little, and again when that has been delivered.
        if (detour->feed.file != nullptr && detour->feed.is_empty())
            if (wal::Chunk* chunk = read_wal_file(&detour->feed, at_a_time)) lend_wal(&detour->feed, chunk);
        end_file_trouble(&detour->feed, handed);
        end_if_caught_up(detour, handed);
    }
}

bool a_detour_waits(const SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) {
        const WalFeed& feed = static_cast<WalDetour*>(lfirst(cell))->feed;
        if (feed.file != nullptr && feed.is_empty()) return true;
    }
    return false;
}

bool a_detour_is_behind(const SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours)
        if (static_cast<WalDetour*>(lfirst(cell))->feed.behind) return true;
    return false;
}

long detours_read_again_in(const SenderRoute* route) {
    long least = -1;
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) {
        WalFeed* feed = &static_cast<WalDetour*>(lfirst(cell))->feed;
        long in = reads_again_in(feed, feed->is_empty());
        if (in == 0 && !can_use_file(feed)) in = ms_until(feed->trouble.retry_at);
        if (in >= 0) least = least < 0 ? in : std::min(least, in);
    }
    return least;
}

const char* file_trouble_of_detours(const SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) {
        const FileTrouble& trouble = static_cast<WalDetour*>(lfirst(cell))->feed.trouble;
        if (trouble.words[0] != '\0') return trouble.words;
    }
    return "";
}

void close_wal_detours(SenderRoute* route, const wal::Position& handed) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) {
        WalFeed* feed = &static_cast<WalDetour*>(lfirst(cell))->feed;
        if (!feed->behind) feed->from = std::max(feed->from, handed);
    }
}

void read_detours_again(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) {
        auto* detour = static_cast<WalDetour*>(lfirst(cell));
        if (detour->feed.behind) detour->until = std::max(detour->until, wal_of(route)->from);
        detour->feed.behind = false;
    }
}

bool give_back_to_detours(SenderRoute* route, const delivery::Report::Finished& finished) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours)
        if (give_back_wal_lent(&static_cast<WalDetour*>(lfirst(cell))->feed, finished)) return true;
    return false;
}

void save_wal_detours(SenderRoute* route) {
    const wal::Position routes = route->stored.cursor.wal.at;
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) {
        auto* detour = static_cast<WalDetour*>(lfirst(cell));
        detour->going = detour->ended && routes >= detour->behind;
        detour->saving = detour->saved;
        detour->saving_ahead = detour->saved_ahead;
        if (detour->going) {
            if (detour->stored.exists) log::delete_cursor(detour->stored);
            continue;
        }
        wal::Position place = place_of(detour);
        log::DetourEvents events = events_of(detour);
        bool same = place == detour->saved && events.settled.count == detour->saved_ahead;
        if (detour->stored.exists && same) continue;
        detour->stored.cursor.wal = route->stored.cursor.wal;
        detour->stored.cursor.wal.at = place;
        (void)log::save_cursor(&detour->stored, &events);
        detour->saving = place;
        detour->saving_ahead = events.settled.count;
    }
}

void wal_detours_saved(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) {
        auto* detour = static_cast<WalDetour*>(lfirst(cell));
        detour->saved = detour->saving;
        detour->saved_ahead = detour->saving_ahead;
        if (!detour->going) continue;
        remove_key(detour);
        wal_of(route)->detours = foreach_delete_current(wal_of(route)->detours, cell);
        free_detour(detour);
    }
}

wal::Position first_of_detours(const SenderRoute* route, const wal::Position& from) {
    wal::Position found = from;
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) {
        auto* detour = static_cast<const WalDetour*>(lfirst(cell));
        if (!detour->ended) found = std::min(found, detour->feed.from);
    }
    return found;
}

wal::Position settled_on_detours(const SenderRoute* route, const wal::Position& settled) {
    wal::Position found = settled;
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) found = std::min(found, place_of(static_cast<WalDetour*>(lfirst(cell))));
    return found;
}

wal::Position least_of_detours(const SenderRoute* route, const wal::Position& least) {
    wal::Position found = least;
    ListCell* cell;
    foreach (cell, wal_of(route)->detours) found = std::min(found, static_cast<WalDetour*>(lfirst(cell))->saved);
    return found;
}

}  // namespace eventbus::sender
