// What it is: what routes from the WAL, and their detours, have been lent, until the dispatcher gives it back.
// Who calls it: wal_feed.cpp, wal_detours.cpp, ledger.cpp.
// Never: frees what the broker may still be sent.
#include <algorithm>

#include "postgres/guest.hpp"
#include "sender/wal_parked_keys.hpp"
#include "sender/wal_state.hpp"

namespace eventbus::sender {

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
    drop_wal_file(feed);
    if (feed->building != nullptr) wal::free_chunk(feed->building);
    if (feed->lent == NIL) return;
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    auto* left = static_cast<WalFeed*>(palloc(sizeof(WalFeed)));
    *left = *feed;
    wal_now.left = lappend(wal_now.left, left);
    MemoryContextSwitchTo(before);
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
    foreach (cell, wal_now.left) {
        auto* left = static_cast<WalFeed*>(lfirst(cell));
        if (!give_back_wal_lent(left, finished) || left->lent != NIL) continue;
        wal_now.left = foreach_delete_current(wal_now.left, cell);
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
        *at = {event.id.lsn, event.id.number - 1};
        return true;
    }
    return false;
}

wal::Position lent_by_now(const SenderRoute* route) {
    const WalFeed* feed = route->wal;
    if (feed->file != nullptr) return feed->read;
    return feed->is_read && !feed->behind ? std::max(feed->from, handed_by_now()) : feed->from;
}

}  // namespace eventbus::sender
