// What it is: see wal_feed.hpp.
// Who calls it: see wal_feed.hpp.
// Never: see wal_feed.hpp.
#include "worker/wal_feed.hpp"

#include <algorithm>

#include "catalog/wal_selection.hpp"
#include "postgres/compat.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "settings/settings.hpp"
#include "wal/slot.hpp"
#include "worker/process.hpp"
#include "worker/wal_detours.hpp"
#include "worker/wal_state.hpp"

extern "C" {
#include "access/xlog.h"
}

namespace eventbus::worker {

namespace {

constexpr Size chunk_bytes = 2 * 1024 * 1024;
constexpr int still_ms = 1000;    // a full route that has not moved for so long is not waited for
constexpr long starting_ms = 50;  // between looks while a slot is made
constexpr long unseen_ms = 10;    // and while what was found cannot be seen yet; its commit wakes us earlier
constexpr int confirm_ms = 1000;

wal::Limits limits() {
    return {static_cast<uint32>(settings::batch_events), chunk_bytes};
}

bool wants(void* context, std::string_view topic) {
    auto* route = static_cast<SenderRoute*>(context);
    bool match = true;
    GuestError error;
    catch_guest(error, [&] { match = route->filter->matches(topic); });
    return match;
}

void past(void* context, const Event& event) {
    show_past_to_detours(static_cast<SenderRoute*>(context), event);
}

delivery::RouteStatus status_of(const SenderRoute* route) {
    return call_guest([&] { return sender.dispatcher->status(static_cast<delivery::RouteId>(route->id)); });
}

bool hungry(const WalFeed* feed) {
    return call_guest([&] { return sender.dispatcher->hungry(feed->stream); });
}

void lend_to_route(SenderRoute* route, wal::Chunk* chunk) {
    show_to_detours(route, chunk->events, chunk->count);
    lend_wal(route->wal, chunk);
}

// Routes that had no room in memory get from their files what there is room for now.
void lend_from_files() {
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        WalFeed* feed = route->wal;
        if (feed == nullptr) continue;
        feed_wal_detours(route, handed_by_now());
        if (feed->taker.file == nullptr || !hungry(feed)) continue;
        if (wal::Chunk* chunk = wal::read_file(&feed->taker, limits(), sender.memory)) lend_to_route(route, chunk);
    }
}

bool a_file_waits() {
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal == nullptr) continue;
        const wal::Taker& taker = route->wal->taker;
        if (a_detour_waits(route) || (taker.file != nullptr && !wal::is_read(taker.file) && hungry(route->wal)))
            return true;
    }
    return false;
}

// Whether to read on: somebody has room, and nobody is full who is about to have. Those who are full and stand still
// get theirs into files.
bool has_room() {
    bool any = false;
    wal_now.awaited = false;
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        WalFeed* feed = route->wal;
        if (feed == nullptr || is_lost(route)) continue;
        bool full = !hungry(feed);
        feed->taker.to_file = full || feed->taker.file != nullptr;
        if (!full) {
            any = true;
            continue;
        }
        delivery::Position settled = status_of(route).settled;
        if (settled != feed->settled) {
            feed->settled = settled;
            feed->moved_at = steady_now();
        }
        wal_now.awaited =
            wal_now.awaited || (feed->taker.file == nullptr && !ms_have_passed(feed->moved_at, steady_now(), still_ms));
    }
    return any && !wal_now.awaited;
}

bool all_is_visible() {
    if (!wal::has_unseen(wal_now.source)) return true;
    begin_transaction(nullptr);
    bool visible = wal::all_is_visible(wal_now.source);
    commit_transaction();
    return visible;
}

void hand_on() {
    wal_now.unseen = !standbys_have(wal::read_by_now(wal_now.source)) || !all_is_visible();
    // What was read for the routes as they were is read again where the change is theirs.
    wal_now.unseen = wal_now.unseen || !knows_configuration();
    if (wal_now.unseen) return;
    wal::handed_on(wal_now.source);
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal == nullptr || route->wal->taker.building == nullptr) continue;
        wal::Chunk* chunk = route->wal->taker.building;
        route->wal->taker.building = nullptr;
        lend_to_route(route, chunk);
    }
}

// What was committed without waiting for the disk is flushed here: decoding reads nothing else.
void flush_wanted() {
    XLogRecPtr wanted = sender.place->wal_end;
    if (wanted > GetFlushRecPtr(nullptr)) XLogFlush(wanted);
}

void note_end(bool at_end) {
    if (at_end != wal_now.at_end) sender.unshown = true;
    wal_now.at_end = at_end;
}

// What has been found by reading since then is with the routes.
void note_handed(TimestampTz since) {
    note_end(!wal_now.more);
    // A clock that was set back makes what lay before now lie ahead.
    TimestampTz known = std::min(wal_now.handed_until, since);
    wal_now.handed_until = wal_now.at_end ? since : std::max(known, wal::committed_by_now(wal_now.source));
}

void read_on(void*) {
    if (wal_now.unseen) {
        hand_on();
        if (wal_now.unseen) {
            note_end(false);
            return;
        }
    }
    TimestampTz since = GetCurrentTimestamp();
    flush_wanted();
    bool starting = wal::state_of(wal_now.source) == wal::State::starting;
    use_search_path(SearchPath::of_sessions);
    wal_now.more = wal::step(wal_now.source, limits());
    use_search_path(SearchPath::own);
    if (wal::state_of(wal_now.source) != wal::State::running) {
        sender.unshown = true;
        return;
    }
    if (starting) wal_source_began();
    wal_source_moved();
    hand_on();
    if (!wal_now.unseen) note_handed(since);
}

}  // namespace

static bool is_of_slot(const log::WalPlace& place) {
    static const char* slot = MemoryContextStrdup(TopMemoryContext, wal::slot_name(sender.database, sender.broker_id));
    return place.system == static_cast<int64>(GetSystemIdentifier()) && strcmp(place.slot, slot) == 0;
}

// What the route's options ask of the decoder; the texts live with the sender, and options change rarely.
static void select_wal(SenderRoute* route) {
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    route->wal->taker.selection = catalog::wal_selection(route->options, *sender.module);
    MemoryContextSwitchTo(before);
}

WalFeed* make_wal_feed(SenderRoute* route) {
    auto* feed = static_cast<WalFeed*>(MemoryContextAllocZero(sender.memory, sizeof(WalFeed)));
    feed->stream = ++sender.next_stream;
    feed->next_chunk = 1;
    feed->taker.context = route;
    feed->taker.wants = wants;
    feed->taker.past = past;
    feed->taker.memory = sender.memory;
    route->wal = feed;
    begin_wal_feed(route);
    return feed;
}

void begin_wal_feed(SenderRoute* route) {
    const log::WalPlace& place = route->stored.cursor.wal;
    select_wal(route);
    route->wal->taker.from = route->wal->saved = {place.lsn, place.number};
    route->wal->saved_of_slot = is_of_slot(place);
    wal_now.changed = true;
}

void free_wal_feed(SenderRoute* route) {
    if (wal_now.source != nullptr) close_wal_source();
    forget_wal_detours(route);
    leave_wal_lent(route->wal);
    pfree(route->wal);
    route->wal = nullptr;
    wal_now.changed = true;
}

void change_wal_route(SenderRoute* route) {
    select_wal(route);
    wal_now.changed = true;
}

bool feed_wal() {
    // A slot that is being made is not made anew for a route that has come meanwhile.
    if (wal_now.source != nullptr && wal_now.changed && wal::state_of(wal_now.source) == wal::State::running)
        close_wal_source();
    if (wal_now.source == nullptr) {
        bool was_changed = wal_now.changed;
        if (!was_changed && wal_now.trouble[0] == '\0') return false;
        open_wal_source_if_due();
        if (wal_now.source == nullptr) return false;
        if (wal::state_of(wal_now.source) == wal::State::running) wal_source_began();
    }
    lend_from_files();
    if (!has_room()) {
        if (is_reading() && sender.place->wal_end > wal::read_by_now(wal_now.source)) note_end(false);
        return false;
    }
    if (!attempt(read_on, nullptr)) return wal_now.source == nullptr && wal_now.changed;
    return wal_now.more && !wal_now.unseen;
}

bool wal_has_more() {
    if (!is_reading()) return false;
    if (a_file_waits()) return true;
    return !wal_now.unseen && (wal_now.more || sender.place->wal_end > wal::read_by_now(wal_now.source)) && has_room();
}

long wal_wait() {
    if (wal_now.unseen) return wal_now.trouble[0] != '\0' ? starting_ms : unseen_ms;
    if (wal_now.awaited) return still_ms / 10;
    if (wal_now.source != nullptr && wal::state_of(wal_now.source) == wal::State::starting) return starting_ms;
    if (wal_now.source == nullptr && wal_now.trouble[0] != '\0') return std::max<long>(1, ms_until(wal_now.retry_at));
    return -1;
}

static wal::Position place_of(const SenderRoute* route, const delivery::Position& settled) {
    wal::Position at;
    return first_unsettled(route->wal, settled, &at) ? at : lent_by_now(route);
}

wal::Position settled_by_now(const SenderRoute* route) {
    return settled_on_detours(route, handed_by_now(), place_of(route, status_of(route).settled));
}

void put_wal_place(SenderRoute* route, const delivery::Position& settled, log::WalPlace* place) {
    wal::Position at = place_of(route, settled);
    place->lsn = at.lsn;
    place->number = at.number;
}

void wal_cursor_saved(SenderRoute* route) {
    route->wal->saved = {route->stored.cursor.wal.lsn, route->stored.cursor.wal.number};
    route->wal->saved_of_slot = is_of_slot(route->stored.cursor.wal);
    wal_detours_saved(route);
}

// The slot may not stand behind a cursor that is on disk, so that another one is told from it. A cursor that only
// others' WAL goes by is written again when much has: what that writes is WAL, too, and must not be enough for the next
// time.
static bool much_has_gone_by() {
    const uint64 much = 1024 * 1024 + 4096 * static_cast<uint64>(list_length(sender.routes));
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal == nullptr || is_lost(route) || !is_idle(route) || route->wal->taker.file != nullptr) continue;
        if (lent_by_now(route).lsn > route->wal->saved.lsn + much) return true;
    }
    return false;
}

void confirm_wal() {
    if (wal::state_of(wal_now.source) != wal::State::running || sender.keeps_wal) return;
    if (!ms_have_passed(wal_now.confirmed_at, steady_now(), confirm_ms)) return;
    wal_now.confirmed_at = steady_now();
    if (much_has_gone_by()) save_cursors();
    wal::Position least = wal::handed_by_now(wal_now.source);
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal == nullptr || is_lost(route)) continue;
        least = least_of_detours(route, std::min(least, route->wal->saved));
    }
    XLogFlush(XactLastCommitEnd);
    // A promoted standby would have the slot without the cursors and dead letters that it has been moved for.
    if (!compat::standbys_have(XactLastCommitEnd)) return;
    wal::confirm(wal_now.source, least.lsn);
}

TimestampTz oldest_to_come(const SenderRoute* route) {
    bool lost = is_lost(route);
    if (!lost && route->wal->taker.file == nullptr) {
        // What commits before the slot is made is not the route's.
        if (wal_now.at_end || wal::state_of(wal_now.source) == wal::State::starting) return 0;
        if (wal_now.handed_until != 0) return wal_now.handed_until;
    }
    return status::oldest_unknown;
}

const char* wal_state(const SenderRoute* route, const char** words) {
    *words = "";
    if (route->wal == nullptr) return nullptr;
    if (is_lost(route)) {
        const log::WalPlace& place = route->stored.cursor.wal;
        static char lost[256];
        snprintf(lost, sizeof lost, "replication slot %s is gone: what was committed after %X/%X is not delivered",
                 place.slot, static_cast<uint32>(place.lsn >> 32), static_cast<uint32>(place.lsn));
        *words = lost;
        return "lost";
    }
    if (route->paused) return nullptr;
    if (wal::state_of(wal_now.source) == wal::State::starting) {
        *words = wal::words_of(wal_now.source);
        return "starting";
    }
    if (wal_now.trouble[0] != '\0') {
        *words = wal_now.trouble;
        return "failing";
    }
    return wal_now.source == nullptr ? "starting" : nullptr;
}

}  // namespace eventbus::worker
