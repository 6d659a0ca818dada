// What it is: the sender's answers to whoever waits: which routes have settled what is asked for, or left it out.
// Who calls it: the sender's loop, after each report and before it leaves events out.
// Never: looks at anything while nobody waits.
#include <algorithm>

#include "postgres/guest.hpp"
#include "sender/sender.hpp"
#include "source/log/together.hpp"

namespace eventbus::sender {

namespace {

const SenderRoute* route_of(int32 id) {
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<const SenderRoute*>(lfirst(cell));
        if (route->id == id) return route;
    }
    return nullptr;
}

// Finds the event among those that are lent on the stream.
bool find_lent(const LogStream* stream, const EventId& id, delivery::Position* position) {
    ListCell* cell;
    foreach (cell, stream->lent) {
        auto* lent = static_cast<Lent*>(lfirst(cell));
        const Event* found = log::find_in(lent->chunk, id);
        if (found == nullptr) continue;
        *position = {lent->id, static_cast<std::uint32_t>(found - lent->chunk->events)};
        return true;
    }
    return false;
}

// The detour that the event is on, or nullptr.
const SenderDetour* detour_of(const SenderRoute* route, const counters::Wanted& wanted) {
    ListCell* cell;
    foreach (cell, route->detours) {
        auto* detour = static_cast<const SenderDetour*>(lfirst(cell));
        if (detour->ended) continue;
        if (detour->takes->key ? wanted.place.key_mark == log::mark_of(*detour->takes->key)
                               : std::ranges::binary_search(detour->takes->events, wanted.id))
            return detour;
    }
    return nullptr;
}

bool is_settled(const counters::Wanted& wanted, const SenderRoute* route, const SenderDetour* detour) {
    if (detour != nullptr && std::ranges::binary_search(detour->takes->settled, wanted.id)) return true;
    const log::Cursor* from = detour != nullptr ? detour->from : route->from;
    if (from != nullptr && log::settles(*from, wanted.place.xid, wanted.place.at, wanted.id, wanted.place.file))
        return true;
    const LogStream* stream = detour != nullptr ? detour->stream : route->stream;
    delivery::DetourId number = detour != nullptr ? detour->number : 0;
    delivery::Position position;
    if (find_lent(stream, wanted.id, &position))
        return call_guest(
            [&] { return sender.dispatcher->is_settled(static_cast<delivery::RouteId>(route->id), position, number); });
    return log::has_passed(stream->reader, wanted.id, wanted.place);
}

// What is lost is nobody's to deliver any more.
counters::Answer answer_for_wal(const SenderRoute* route, XLogRecPtr lsn) {
    if (route->wal == nullptr) return counters::Answer::none;
    if (route->stored.cursor.wal.lost) return counters::Answer::left_out;
    return settled_by_now(route).lsn >= lsn ? counters::Answer::settled : counters::Answer::none;
}

// What stands before a cursor's first generation is through, but how, nobody knows any more.
counters::Answer answer_for(const counters::Wanted& wanted, std::int32_t route_id) {
    const SenderRoute* route = route_of(route_id);
    if (route == nullptr) return counters::Answer::none;
    if (!wanted.id.is_of_log()) return answer_for_wal(route, wanted.id.lsn);
    if (route->stream == nullptr) return counters::Answer::none;
    const SenderDetour* detour = detour_of(route, wanted);
    int64 first_generation = detour != nullptr ? detour->first_generation : route->first_generation;
    if (wanted.place.at.generation < first_generation) return counters::Answer::left_out;
    return is_settled(wanted, route, detour) ? counters::Answer::settled : counters::Answer::none;
}

}  // namespace

void answer_waiters() {
    if (counters::anybody_waits()) counters::answer_waiters(sender.database, answer_for);
}

}  // namespace eventbus::sender
