// What it is: what routes from the WAL, and their parked keys, have been lent, until the dispatcher gives it back.
// Who calls it: wal_feed.cpp, wal_parked_keys.cpp.
// Never: frees what the broker may still be sent.
#include <algorithm>

#include "postgres/guest.hpp"
#include "sender/wal_parked_keys.hpp"
#include "sender/wal_state.hpp"

namespace eventbus::sender {

void lend_wal(WalFeed* feed, wal::Chunk* chunk) {
    feed->append(chunk);
    sender.unsaved = sender.unshown = true;
    call_guest([&] {
        sender.dispatcher->lend(feed->id, {chunk->id, {chunk->events, chunk->count}, chunk->committed_after});
    });
}

void leave_wal_lent(WalFeed* feed) {
    drop_wal_file(feed);
    if (feed->building != nullptr) feed->building->free(feed->building);
    if (feed->is_empty()) return;
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    auto* left = static_cast<source::Stream*>(palloc(sizeof(source::Stream)));
    *left = *feed;
    wal_now.left = lappend(wal_now.left, left);
    MemoryContextSwitchTo(before);
}

bool give_back_wal_lent(WalFeed* feed, const delivery::Report::Finished& finished) {
    if (feed->id != finished.stream) return false;
    (void)feed->take_back(finished.chunk);
    return true;
}

bool give_back_wal(const delivery::Report::Finished& finished) {
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (give_back_wal_lent(wal_of(route), finished) || give_back_to_parked_keys(route, finished)) return true;
    }
    foreach (cell, wal_now.left) {
        auto* left = static_cast<source::Stream*>(lfirst(cell));
        if (left->id != finished.stream) continue;
        (void)left->take_back(finished.chunk);
        if (!left->is_empty()) return true;
        wal_now.left = foreach_delete_current(wal_now.left, cell);
        pfree(left);
        return true;
    }
    return false;
}

bool first_unsettled(const WalFeed* feed, const delivery::Position& settled, wal::Position* at) {
    const source::Chunk* chunk;
    uint32 index;
    if (!feed->first_unsettled(settled, &chunk, &index)) return false;
    const EventId& id = chunk->events[index].id;
    *at = {id.lsn, id.number - 1};
    return true;
}

wal::Position lent_by_now(const SenderRoute* route) {
    const WalFeed* feed = wal_of(route);
    if (feed->file != nullptr) return feed->read;
    return feed->is_read && !feed->behind ? std::max(feed->from, handed_by_now()) : feed->from;
}

}  // namespace eventbus::sender
