#include "sender/wal_feed.hpp"

#include <algorithm>

#include "catalog/wal_selection.hpp"
#include "postgres/guest.hpp"
#include "sender/wal_parked_keys.hpp"
#include "sender/wal_state.hpp"
#include "settings/settings.hpp"
#include "source/wal/slot.hpp"

extern "C" {
#include "access/xlog.h"
#include "storage/latch.h"
#include "storage/proc.h"
}

namespace eventbus::sender {

namespace {

constexpr Size chunk_bytes = 2 * 1024 * 1024;
constexpr int still_ms = 1000;   // a full route that has not moved for so long is not waited for
constexpr long leaving_ms = 20;  // between looks while a decoder leaves
constexpr int confirm_ms = 1000;
constexpr int confirm_far_ms = 50;  // where much WAL could go

WalLimits limits() {
    return {static_cast<uint32>(settings::batch_events), chunk_bytes};
}

bool hungry(const WalFeed* feed) {
    return call_guest([&] { return sender.dispatcher->hungry(feed->id); });
}

// Routes that had no room in memory get from their files what there is room for now.
void lend_from_files() {
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        WalFeed* feed = wal_of(route);
        feed_wal_parked_keys(route, handed_by_now());
        end_file_trouble(feed, handed_by_now());
        if (feed->file == nullptr || !hungry(feed)) continue;
        const wal::Position before = feed->read;
        wal::Chunk* chunk = read_wal_file(feed, limits());
        if (chunk == nullptr) continue;
        for (uint32 i = 0; i < chunk->count; ++i) show_to_parked_keys(route, chunk->events[i]);
        keep_what_came_to_parked_keys(route, before, handed_by_now());
        lend_wal(feed, chunk);
    }
}

// In how many milliseconds somebody is to be read for again whose file has failed; negative: nobody.
long reads_again_in() {
    long least = -1;
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        const WalFeed* feed = wal_of(route);
        if (is_lost(route)) continue;
        for (long in :
             {feed->behind ? sender::reads_again_in(feed, hungry(feed)) : -1, parked_keys_read_again_in(route)})
            if (in >= 0) least = least < 0 ? in : std::min(least, in);
    }
    return least;
}

bool a_file_waits() {
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        const wal::Spool* file = wal_of(route)->file;
        if (a_parked_key_waits(route) || (file != nullptr && !wal::is_read(file) && hungry(wal_of(route)))) return true;
    }
    return false;
}

// Whether to read on: somebody has room, and nobody is full who is about to have. Those who are full and are stalled
// get theirs into files.
bool has_room() {
    bool any = false;
    wal_now.awaited = false;
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        WalFeed* feed = wal_of(route);
        if (is_lost(route) || feed->behind) continue;
        bool full = !hungry(feed);
        feed->to_file = full || feed->file != nullptr;
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
            wal_now.awaited || (feed->file == nullptr && !ms_have_passed(feed->moved_at, steady_now(), still_ms));
    }
    return any && !wal_now.awaited;
}

void lend_what_came() {
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (wal_of(route)->building == nullptr) continue;
        wal::Chunk* chunk = wal_of(route)->building;
        wal_of(route)->building = nullptr;
        wal_of(route)->kept = 0;
        lend_wal(wal_of(route), chunk);
    }
}

}  // namespace

void take_wal_event(SenderRoute* route, const wal::BatchReader& found) {
    WalFeed* feed = wal_of(route);
    if (found.past) {
        show_past_to_parked_keys(route, found.event);
    } else if (feed->behind) {
        return;
    } else if (feed->to_file) {
        put_into_wal_file(feed, found.event);
    } else {
        if (feed->building == nullptr) feed->building = wal::make_chunk(sender.memory);
        show_to_parked_keys(route, found.event);
        wal::add_event(feed->building, wal::copy_event(feed->building, found.event), found.committed_at);
    }
}

bool is_full(const WalFeed* feed, const WalLimits& limits) {
    return feed->building != nullptr &&
           (feed->building->count >= limits.events || feed->building->bytes >= limits.bytes);
}

static bool is_of_slot(const wal::Place& place) {
    static const char* slot = MemoryContextStrdup(TopMemoryContext, wal::slot_name(sender.database, sender.broker_id));
    return place.system == static_cast<int64>(GetSystemIdentifier()) && strcmp(place.slot, slot) == 0;
}

// What the route's options ask of the decoder; the texts live with the sender, and options change rarely.
static void select_wal(SenderRoute* route) {
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    wal_of(route)->selection = catalog::wal_selection(route->options, *sender.module);
    MemoryContextSwitchTo(before);
}

void make_wal_feed(SenderRoute* route) {
    auto* feed = static_cast<WalFeed*>(MemoryContextAllocZero(sender.memory, sizeof(WalFeed)));
    feed->begin(++sender.next_stream);
    feed->route = route;
    route->feed = feed;
    (void)wal::load_place(route->id, 0, sender.memory, &route->row, &feed->place);
    begin_wal_feed(route);
}

void begin_wal_feed(SenderRoute* route) {
    const wal::Place& place = wal_of(route)->place;
    select_wal(route);
    wal_of(route)->begun = wal_of(route)->is_read = false;
    forget_wal_file(wal_of(route));
    wal_of(route)->from = wal_of(route)->saved = place.at;
    wal_of(route)->saved_of_slot = is_of_slot(place);
    wal_now.changed = true;
}

void free_wal_feed(SenderRoute* route) {
    if (!is_closed()) close_decoder();
    forget_wal_parked_keys(route);
    leave_wal_lent(wal_of(route));
    pfree(wal_of(route));
    wal_now.changed = true;
}

void apply_to_wal_route(SenderRoute* route, bool changed) {
    if (is_lost(route)) {
        cursors::Row row;
        wal::Place place;
        if (wal::load_place(route->id, 0, CurrentMemoryContext, &row, &place) && place.lost) return;
        wal_of(route)->place = place;
        route->row.at = row.at;
        begin_wal_feed(route);
    } else if (changed) {
        select_wal(route);
        wal_now.changed = true;
    }
}

bool feed_wal() {
    if (is_reading() && reads_again_in() == 0) wal_now.changed = true;
    // What comes for routes as they were is nobody's. But a slot that is being made is not made again for a route that
    // has come meanwhile.
    if (!is_closed() && wal_now.changed && !wal_now.makes_slot) close_decoder();
    if (is_closed()) {
        if (!wal_now.changed && wal_now.trouble[0] == '\0') return false;
        open_decoder_if_due();
        if (is_closed()) return false;
    }
    lend_from_files();
    if (is_reading() && !has_room()) {
        if (notice_lost_slot()) return true;
        if (wal_now.at_end && sender.place->wal_end > wal_now.read) {
            wal_now.at_end = false;
            sender.unshown = true;
        }
        return false;
    }
    bool more = receive_from_decoder(limits());
    lend_what_came();
    return more;
}

bool wal_has_more() {
    if (is_closed()) return false;
    if (!is_reading()) return wal_now.unread;
    return a_file_waits() || (wal_now.unread && has_room());
}

long wal_wait() {
    if (a_decoder_leaves() || (is_closed() && wal_now.changed)) return leaving_ms;
    if (wal_now.awaited) return still_ms / 10;
    if (is_reading() && wal_now.confirm_waits) return confirm_far_ms;
    if (is_reading()) return reads_again_in();
    if (is_closed() && wal_now.trouble[0] != '\0') return std::max<long>(1, ms_until(wal_now.retry_at));
    return -1;
}

static wal::Position place_of(const SenderRoute* route, const delivery::Position& settled) {
    wal::Position at;
    return first_unsettled(wal_of(route), settled, &at) ? at : lent_by_now(route);
}

wal::Position settled_by_now(const SenderRoute* route) {
    return settled_on_parked_keys(route, place_of(route, status_of(route).settled));
}

void put_wal_place(SenderRoute* route, const delivery::Position& settled) {
    wal_of(route)->place.at = place_of(route, settled);
}

void wal_cursor_saved(SenderRoute* route) {
    wal_of(route)->saved = wal_of(route)->place.at;
    wal_of(route)->saved_of_slot = is_of_slot(wal_of(route)->place);
    wal_parked_keys_saved(route);
}

// The slot may not stand behind a cursor that is on disk, so that another one is told from it. A cursor that only
// others' WAL goes by is written again when much has: what that writes is WAL, too, and must not be enough for the next
// time.
static bool much_has_gone_by() {
    const uint64 much = 1024 * 1024 + 4096 * static_cast<uint64>(list_length(sender.routes));
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (is_lost(route) || !is_idle(route) || wal_of(route)->file != nullptr) continue;
        const XLogRecPtr passed = lent_by_now(route).lsn;
        const XLogRecPtr wanted = wal_now.head->wanted;
        if (passed > wal_of(route)->saved.lsn + much || (wanted > wal_of(route)->saved.lsn && passed >= wanted))
            return true;
    }
    return false;
}

void confirm_wal() {
    if (!is_reading() || wal_now.keeps_all) return;
    const XLogRecPtr wanted = wal_now.head->wanted;
    const bool far = wal_now.handed.lsn > wal_now.tried + static_cast<XLogRecPtr>(wal_segment_size) / 2 ||
                     (wanted > wal_now.tried && wal_now.handed.lsn >= wanted);
    const bool early = !ms_have_passed(wal_now.confirmed_at, steady_now(), far ? confirm_far_ms : confirm_ms);
    wal_now.confirm_waits = far && early;
    if (early) return;
    wal_now.confirmed_at = steady_now();
    wal_now.tried = wal_now.handed.lsn;
    if (much_has_gone_by()) save_cursors();
    wal::Position least = handed_by_now();
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (is_lost(route)) continue;
        least = least_of_parked_keys(route, std::min(least, wal_of(route)->saved));
    }
    if (least.lsn <= wal_now.confirmed) return;
    XLogFlush(XactLastCommitEnd);
    wal_now.confirmed = least.lsn;
    wal_now.head->written = XactLastCommitEnd;
    wal_now.head->confirm = least.lsn;
    if (PGPROC* decoder = shm_mq_get_sender(processes::queue_of(wal_now.head))) SetLatch(&decoder->procLatch);
}

const char* place_text(const wal::Place& place) {
    static char text[128];
    char* end = text + snprintf(text, sizeof text, "%X/%X", static_cast<uint32>(place.at.lsn >> 32),
                                static_cast<uint32>(place.at.lsn));
    if (place.at.number > 0)
        snprintf(end, static_cast<Size>(text + sizeof text - end),
                 " (of the transaction there, from change " INT64_FORMAT ")", place.at.number + 1);
    return text;
}

}  // namespace eventbus::sender
