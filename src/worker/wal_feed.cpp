// What it is: see wal_feed.hpp.
// Who calls it: see wal_feed.hpp.
// Never: see wal_feed.hpp.
#include "worker/wal_feed.hpp"

#include <algorithm>

#include "catalog/wal_selection.hpp"
#include "core/backoff.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "settings/settings.hpp"
#include "wal/preflight.hpp"
#include "wal/slot.hpp"
#include "worker/sender.hpp"
#include "worker/wal_detours.hpp"

extern "C" {
#include "access/xlog.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
}

namespace eventbus::worker {

namespace {

constexpr Size chunk_bytes = 2 * 1024 * 1024;
constexpr int still_ms = 1000;    // a full route that has not moved for so long is not waited for
constexpr long starting_ms = 50;  // between looks while a slot is made
constexpr long unseen_ms = 10;    // and while what was found cannot be seen yet; its commit wakes us earlier
constexpr int confirm_ms = 1000;
constexpr int first_retry_ms = 1000;
constexpr int most_retry_ms = 30000;

struct {
    wal::Source* source;
    bool changed;  // routes have come or gone since the source was opened
    bool awaited;  // a full route is given a moment to move
    bool more;     // the last step did not come to the end of what there is
    bool unseen;   // what was found cannot be seen by all readers yet
    List* left;    // of WalFeed*: of routes that are gone, while the broker may still be sent what they were lent
    TimestampTz confirmed_at;
    char trouble[512];  // why there is no source; empty: none
    char hint[256];
    TimestampTz retry_at;
    Backoff backoff{Backoff::Duration(first_retry_ms), Backoff::Duration(most_retry_ms)};
} state;

wal::Limits limits() {
    return {static_cast<uint32>(settings::batch_events), chunk_bytes};
}

delivery::RouteStatus status_of(const SenderRoute* route) {
    return call_guest([&] { return sender.dispatcher->status(static_cast<delivery::RouteId>(route->id)); });
}

bool hungry(const WalFeed* feed) {
    return call_guest([&] { return sender.dispatcher->hungry(feed->stream); });
}

bool is_lost(const SenderRoute* route) {
    return route->stored.cursor.wal.lost;
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

List* takers() {
    List* list = NIL;
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal != nullptr && !is_lost(route)) list = lappend(list, &route->wal->taker);
    }
    return list;
}

bool is_running() {
    return wal::state_of(state.source) == wal::State::running;
}

wal::Position handed_by_now() {
    return is_running() ? wal::handed_by_now(state.source) : wal::Position();
}

void close_source() {
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal != nullptr) reopen_wal_detours(route, handed_by_now());
    }
    wal::close_source(state.source);
    state.source = nullptr;
    state.unseen = state.more = false;
    status::read_wal(sender.place, sender.worker, false);
}

void show_trouble(const char* words, const char* hint) {
    bool news = strncmp(state.trouble, words, sizeof state.trouble - 1) != 0;
    strlcpy(state.trouble, words, sizeof state.trouble);
    strlcpy(state.hint, hint != nullptr ? hint : "", sizeof state.hint);
    state.retry_at =
        TimestampTzPlusMilliseconds(GetCurrentTimestamp(), state.backoff.next(static_cast<uint32>(MyProcPid)).count());
    sender.unshown = true;
    if (news)
        ereport(WARNING, (errmsg("pg_eventbus: routes from the WAL to broker \"%s\" stand still: %s",
                                 sender.broker_name, state.trouble),
                          state.hint[0] != '\0' ? errhint("%s", state.hint) : 0));
}

void no_trouble() {
    if (state.trouble[0] != '\0')
        ereport(LOG, (errmsg("pg_eventbus: routes from the WAL to broker \"%s\" go on", sender.broker_name)));
    state.trouble[0] = state.hint[0] = '\0';
    sender.unshown = true;
}

// Runs what may fail; afterwards nothing of it is left. False where it failed.
bool attempt(void (*work)(void*), void* argument) {
    MemoryContext before = CurrentMemoryContext;
    volatile bool fine = true;
    PG_TRY();
    { work(argument); }
    PG_CATCH();
    {
        MemoryContextSwitchTo(sender.memory);
        ErrorData* error = CopyErrorData();
        FlushErrorState();
        AbortOutOfAnyTransaction();
        LWLockReleaseAll();
        ConditionVariableCancelSleep();
        pgstat_report_wait_end();
        UnlockBuffers();
        close_source();
        const char* words =
            error->detail != nullptr ? psprintf("%s (%s)", error->message, error->detail) : error->message;
        show_trouble(words, error->hint);
        FreeErrorData(error);
        fine = false;
    }
    PG_END_TRY();
    MemoryContextSwitchTo(before);
    return fine;
}

void mark_lost(SenderRoute* route, const wal::SlotState& slot) {
    log::WalPlace& place = route->stored.cursor.wal;
    place.lost = true;
    (void)log::save_cursor(&route->stored, nullptr);
    ereport(WARNING,
            (errmsg("pg_eventbus: route \"%s\" to broker \"%s\" has lost its place in the WAL", route->name,
                    sender.broker_name),
             errdetail("Replication slot \"%s\" %s; changes committed after %s are not delivered.", place.slot,
                       slot.exists ? "was invalidated (max_slot_wal_keep_size)" : "does not exist any more",
                       wal::lsn_text(place.lsn)),
             errhint("Bring receivers up to date by other means, then eventbus.restart_route('%s').", route->name)));
}

// What there is of the slot, and which routes it has left behind. False where it cannot be used or made.
bool prepare(const char* name, bool* exists) {
    if (!begin_transaction_on_extension("looking for the replication slot")) return false;
    SPI_connect();
    wal::SlotState slot = wal::look_up_slot(name);
    wal::Need need = wal::missing_setting(slot.exists);
    bool usable = slot.exists && !slot.lost;
    bool any = false;
    bool lost_some = false;
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal == nullptr || is_lost(route)) continue;
        if (!usable && strcmp(route->stored.cursor.wal.slot, name) == 0) {
            mark_lost(route, slot);
            lost_some = true;
            continue;
        }
        any = true;
    }
    if (any && slot.lost) (void)wal::drop_slots_but(nullptr, 0);
    if (need.what != nullptr) show_trouble(need.what, psprintf("Put this line into postgresql.conf: %s", need.setting));
    SPI_finish();
    commit_transaction();
    if (lost_some) {
        XLogFlush(XactLastCommitEnd);
        publish_status();
    }
    *exists = usable;
    return any && need.what == nullptr;
}

void open(void*) {
    char name[NAMEDATALEN];
    strlcpy(name, wal::slot_name(sender.database, sender.broker_id), sizeof name);
    bool exists = false;
    if (!prepare(name, &exists)) return;
    List* list = takers();
    state.source = wal::open_source(name, exists, list, sender.memory);
    list_free(list);
    status::read_wal(sender.place, sender.worker, true);
}

void open_if_due() {
    if (state.trouble[0] != '\0' && GetCurrentTimestamp() < state.retry_at && !state.changed) return;
    List* list = takers();
    bool any = list != NIL;
    list_free(list);
    state.changed = false;
    if (any) (void)attempt(open, nullptr);
}

// The source is there, complete, for the first time since it was opened.
void began(const char* slot) {
    state.backoff.reset();
    no_trouble();
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal != nullptr && !is_lost(route))
            strlcpy(route->stored.cursor.wal.slot, slot, sizeof route->stored.cursor.wal.slot);
    }
    sender.unsaved = true;
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
    state.awaited = false;
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
            feed->moved_at = GetCurrentTimestamp();
        }
        state.awaited = state.awaited || (feed->taker.file == nullptr &&
                                          !TimestampDifferenceExceeds(feed->moved_at, GetCurrentTimestamp(), still_ms));
    }
    return any && !state.awaited;
}

bool all_is_visible() {
    if (!wal::has_unseen(state.source)) return true;
    begin_transaction(nullptr);
    bool visible = wal::all_is_visible(state.source);
    commit_transaction();
    return visible;
}

void hand_on() {
    state.unseen = !all_is_visible();
    if (state.unseen) return;
    wal::handed_on(state.source);
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

void read_on(void*) {
    if (state.unseen) {
        hand_on();
        if (state.unseen) return;
    }
    flush_wanted();
    bool starting = wal::state_of(state.source) == wal::State::starting;
    state.more = wal::step(state.source, limits());
    if (wal::state_of(state.source) != wal::State::running) {
        sender.unshown = true;
        return;
    }
    if (starting) began(wal::slot_name(sender.database, sender.broker_id));
    hand_on();
}

}  // namespace

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
    state.changed = true;
}

void lend_wal(WalFeed* feed, wal::Chunk* chunk) {
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    auto* lent = static_cast<WalLent*>(palloc(sizeof(WalLent)));
    *lent = {feed->next_chunk++, chunk};
    feed->lent = lappend(feed->lent, lent);
    MemoryContextSwitchTo(before);
    sender.unsaved = sender.unshown = true;
    call_guest([&] {
        sender.dispatcher->lend(feed->stream,
                                {lent->id, {chunk->events, chunk->count}, to_unix_us(chunk->committed_after)});
    });
}

void leave_wal_lent(WalFeed* feed) {
    if (feed->taker.file != nullptr) wal::free_spool(feed->taker.file);
    if (feed->lent == NIL) return;
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    auto* left = static_cast<WalFeed*>(palloc(sizeof(WalFeed)));
    *left = *feed;
    state.left = lappend(state.left, left);
    MemoryContextSwitchTo(before);
}

void free_wal_feed(SenderRoute* route) {
    if (state.source != nullptr) close_source();
    forget_wal_detours(route);
    leave_wal_lent(route->wal);
    pfree(route->wal);
    route->wal = nullptr;
    state.changed = true;
}

void change_wal_route(SenderRoute* route) {
    select_wal(route);
    state.changed = true;
}

bool feed_wal() {
    // A slot that is being made is not made anew for a route that has come meanwhile.
    if (state.source != nullptr && state.changed && wal::state_of(state.source) == wal::State::running) close_source();
    if (state.source == nullptr) {
        bool was_changed = state.changed;
        if (!was_changed && state.trouble[0] == '\0') return false;
        open_if_due();
        if (state.source == nullptr) return false;
        if (wal::state_of(state.source) == wal::State::running)
            began(wal::slot_name(sender.database, sender.broker_id));
    }
    lend_from_files();
    if (!has_room()) return false;
    return attempt(read_on, nullptr) && state.more && !state.unseen;
}

bool wal_has_more() {
    if (!is_running()) return false;
    if (a_file_waits()) return true;
    return !state.unseen && (state.more || sender.place->wal_end > wal::read_by_now(state.source)) && has_room();
}

long wal_wait() {
    if (state.unseen) return unseen_ms;
    if (state.awaited) return still_ms / 10;
    if (state.source != nullptr && wal::state_of(state.source) == wal::State::starting) return starting_ms;
    if (state.source == nullptr && state.trouble[0] != '\0')
        return std::max<long>(1, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), state.retry_at));
    return -1;
}

bool give_back_wal_lent(WalFeed* feed, const delivery::Report::Finished& finished) {
    if (feed->stream != finished.stream) return false;
    ListCell* cell;
    foreach (cell, feed->lent) {
        auto* lent = static_cast<WalLent*>(lfirst(cell));
        if (lent->id != finished.chunk) continue;
        feed->lent = foreach_delete_current(feed->lent, cell);
        wal::free_chunk(lent->chunk);
        pfree(lent);
        break;
    }
    return true;
}

void give_back_wal(const delivery::Report::Finished& finished) {
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal == nullptr) continue;
        if (give_back_wal_lent(route->wal, finished) || give_back_to_detours(route, finished)) return;
    }
    foreach (cell, state.left) {
        auto* left = static_cast<WalFeed*>(lfirst(cell));
        if (!give_back_wal_lent(left, finished) || left->lent != NIL) continue;
        state.left = foreach_delete_current(state.left, cell);
        pfree(left);
    }
}

bool first_unsettled(const WalFeed* feed, const delivery::Position& settled, wal::Position* at) {
    ListCell* cell;
    foreach (cell, feed->lent) {
        auto* lent = static_cast<WalLent*>(lfirst(cell));
        if (lent->id < settled.chunk) continue;
        if (lent->id == settled.chunk && settled.index >= lent->chunk->count) continue;
        const Event& event = lent->chunk->events[lent->id == settled.chunk ? settled.index : 0];
        *at = {event.lsn, event.number - 1};
        return true;
    }
    return false;
}

wal::Position lent_by_now(const SenderRoute* route) {
    const wal::Taker& taker = route->wal->taker;
    if (taker.file != nullptr) return taker.read;
    return std::max(taker.from, handed_by_now());
}

static wal::Position place_of(const SenderRoute* route, const delivery::Position& settled) {
    wal::Position at;
    return first_unsettled(route->wal, settled, &at) ? at : lent_by_now(route);
}

void put_wal_place(SenderRoute* route, const delivery::Position& settled, log::WalPlace* place) {
    wal::Position at = place_of(route, settled);
    place->lsn = at.lsn;
    place->number = at.number;
}

void wal_cursor_saved(SenderRoute* route) {
    route->wal->saved = {route->stored.cursor.wal.lsn, route->stored.cursor.wal.number};
}

void confirm_wal() {
    if (wal::state_of(state.source) != wal::State::running) return;
    if (!TimestampDifferenceExceeds(state.confirmed_at, GetCurrentTimestamp(), confirm_ms)) return;
    state.confirmed_at = GetCurrentTimestamp();
    wal::Position least = wal::handed_by_now(state.source);
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal == nullptr || is_lost(route)) continue;
        // Where nothing was anybody's since the cursor was written, it need not be written again.
        bool passed = !sender.unsaved && is_idle(route) && route->wal->taker.file == nullptr;
        least = least_of_detours(route, std::min(least, passed ? lent_by_now(route) : route->wal->saved));
    }
    XLogFlush(XactLastCommitEnd);
    wal::confirm(state.source, least.lsn);
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
    if (wal::state_of(state.source) == wal::State::starting) {
        *words = wal::words_of(state.source);
        return "starting";
    }
    if (state.source == nullptr && state.trouble[0] != '\0') {
        *words = state.trouble;
        return "failing";
    }
    return state.source == nullptr ? "starting" : nullptr;
}

}  // namespace eventbus::worker
