// What it is: what becomes of an event that somebody waits for, on a route from the log.
// Who calls it: LogSource::answer.
// Never: says that an event is settled before it is.
#include <algorithm>

#include "postgres/guest.hpp"
#include "sender/log_source.hpp"
#include "source/log/together.hpp"

namespace eventbus::sender {

namespace {

// Finds the event among those that are lent on the stream.
bool find_lent(const LogStream* stream, const EventId& id, delivery::Position* position) {
    for (const source::Chunk* chunk = stream->first; chunk != nullptr; chunk = chunk->next) {
        const Event* found = log::find_in(chunk, id);
        if (found == nullptr) continue;
        *position = {chunk->id, static_cast<std::uint32_t>(found - chunk->events)};
        return true;
    }
    return false;
}

bool has(const std::vector<EventId>& rising, const EventId& id) {
    return std::binary_search(rising.begin(), rising.end(), id);
}

// The detour that the event is on, or nullptr.
const SenderDetour* detour_of(const SenderRoute* route, const counters::Wanted& wanted) {
    ListCell* cell;
    foreach (cell, log_of(route)->detours) {
        auto* detour = static_cast<const SenderDetour*>(lfirst(cell));
        if (detour->ended) continue;
        if (detour->takes->key ? wanted.place.key_mark == log::mark_of(*detour->takes->key)
                               : has(detour->takes->events, wanted.id))
            return detour;
    }
    return nullptr;
}

bool is_settled(const counters::Wanted& wanted, const SenderRoute* route, const SenderDetour* detour) {
    if (detour != nullptr && has(detour->takes->settled, wanted.id)) return true;
    const log::Cursor* from = detour != nullptr ? detour->from : log_of(route)->from;
    if (from != nullptr && log::settles(*from, wanted.place.xid, wanted.place.at, wanted.id, wanted.place.file))
        return true;
    const LogStream* stream = detour != nullptr ? detour->stream : log_of(route)->stream;
    delivery::DetourId number = detour != nullptr ? detour->number : 0;
    delivery::Position position;
    if (find_lent(stream, wanted.id, &position))
        return call_guest(
            [&] { return sender.dispatcher->is_settled(static_cast<delivery::RouteId>(route->id), position, number); });
    return log::has_passed(stream->reader, wanted.id, wanted.place);
}

}  // namespace

// What stands before a cursor's first generation is through, but how, nobody knows any more.
counters::Answer answer_for_log(const SenderRoute* route, const counters::Wanted& wanted) {
    const SenderDetour* detour = detour_of(route, wanted);
    int64 first_generation = detour != nullptr ? detour->first_generation : log_of(route)->first_generation;
    if (wanted.place.at.generation < first_generation) return counters::Answer::left_out;
    return is_settled(wanted, route, detour) ? counters::Answer::settled : counters::Answer::none;
}

}  // namespace eventbus::sender
