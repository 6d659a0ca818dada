// What it is: what becomes of an event that somebody waits for, on a route from the log.
// Who calls it: LogSource::answer.
// Never: says that an event is settled before it is.
#include <algorithm>

#include "postgres/guest.hpp"
#include "sender/log_source.hpp"
#include "source/log/merged_cursors.hpp"

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

// The parked key that the event is on, or nullptr.
const LogParkedKey* parked_key_of(const SenderRoute* route, const counters::Wanted& wanted) {
    ListCell* cell;
    foreach (cell, log_of(route)->parked_keys) {
        auto* parked_key = static_cast<const LogParkedKey*>(lfirst(cell));
        if (parked_key->ended) continue;
        if (parked_key->takes->key ? wanted.place.key_mark == log::mark_of(*parked_key->takes->key)
                                   : has(parked_key->takes->events, wanted.id))
            return parked_key;
    }
    return nullptr;
}

bool is_settled(const counters::Wanted& wanted, const SenderRoute* route, const LogParkedKey* parked_key) {
    if (parked_key != nullptr && has(parked_key->takes->settled, wanted.id)) return true;
    const log::Cursor* from = parked_key != nullptr ? parked_key->from : log_of(route)->from;
    if (from != nullptr && log::settles(*from, wanted.place.xid, wanted.place.at, wanted.id, wanted.place.file))
        return true;
    const LogStream* stream = parked_key != nullptr ? parked_key->stream : log_of(route)->stream;
    delivery::ParkedKeyId number = parked_key != nullptr ? parked_key->number : 0;
    delivery::Position position;
    if (find_lent(stream, wanted.id, &position))
        return call_guest(
            [&] { return sender.dispatcher->is_settled(static_cast<delivery::RouteId>(route->id), position, number); });
    return log::has_passed(stream->reader, wanted.id, wanted.place);
}

}  // namespace

// What stands before a cursor's first generation is through, but how, nobody knows any more.
counters::Answer answer_for_log(const SenderRoute* route, const counters::Wanted& wanted) {
    const LogParkedKey* parked_key = parked_key_of(route, wanted);
    int64 first_generation = parked_key != nullptr ? parked_key->first_generation : log_of(route)->first_generation;
    if (wanted.place.at.generation < first_generation) return counters::Answer::left_out;
    return is_settled(wanted, route, parked_key) ? counters::Answer::settled : counters::Answer::none;
}

}  // namespace eventbus::sender
