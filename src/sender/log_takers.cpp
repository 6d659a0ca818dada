// What it is: who takes what of a stream: one look at an event for all of the stream's routes.
// Who calls it: the feed, as it reads and lends a chunk.
// Never: lends a route again what it had settled before it came to the stream.
#include <algorithm>

#include "postgres/guest.hpp"
#include "sender/log_source.hpp"
#include "source/log/merged_cursors.hpp"

namespace eventbus::sender {

namespace {

void gather(LogStream* stream) {
    if (stream->index != nullptr && stream->arranged == log_now.arranged) return;
    free_takers(stream);
    stream->takers = static_cast<SenderRoute**>(
        MemoryContextAlloc(sender.memory, sizeof(void*) * (list_length(log_now.routes) + 1)));
    ListCell* cell;
    foreach (cell, log_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (log_of(route)->stream != stream) continue;
        stream->takers[stream->taker_count++] = route;
        if (log_of(route)->from != nullptr) ++stream->come_with;
    }
    call_guest([&] {
        stream->index = new router::TopicIndex();
        for (int i = 0; i < stream->taker_count; ++i) {
            const router::TopicFilter& filter = *stream->takers[i]->filter;
            if (filter.matches_everything() && log_of(stream->takers[i])->from == nullptr) stream->takes_all = true;
            stream->index->add(filter, static_cast<std::uint32_t>(i));
        }
    });
    stream->tickets_each = static_cast<Size>(stream->taker_count);  // until it is known
    stream->arranged = log_now.arranged;
}

void note_settled(LogStream* stream, const EventId& event, int32 route_id) {
    if (stream->settled_count == stream->settled_room) {
        int room = stream->settled_room * 2 + 64;
        Size bytes = sizeof(SettledBefore) * room;
        stream->settled = static_cast<SettledBefore*>(
            stream->settled == nullptr ? MemoryContextAlloc(sender.memory, bytes) : repalloc(stream->settled, bytes));
        stream->settled_room = room;
    }
    stream->settled[stream->settled_count++] = {event, route_id};
}

// The file that the reader has just found the place in.
uint32 file_of(const LogStream* stream, const log::Position& at) {
    return log::place_of(stream->reader).files[log::segment_of(at.generation)];
}

// Whether some route of the stream takes the event. One that nobody takes is not even converted.
bool wanted(void* context, const Event& event, uint64 xid, const log::Position& at) {
    auto* stream = static_cast<LogStream*>(context);
    bool alone = stream->come_with == 0;
    if (alone && stream->takes_all) return true;
    std::span<const std::uint32_t> matched;
    GuestError error;
    catch_guest(error, [&] { matched = stream->index->matches(event.topic); });
    bool everybodys = event.topic.empty() || error.kind != GuestError::Kind::none;  // it could not be found out
    if (alone) return everybodys || !matched.empty();
    int before = stream->settled_count;
    bool found = false;
    int count = everybodys ? stream->taker_count : static_cast<int>(matched.size());
    for (int i = 0; i < count; ++i) {
        const SenderRoute* route = stream->takers[everybodys ? i : static_cast<int>(matched[i])];
        if (log_of(route)->from != nullptr &&
            log::settles(*log_of(route)->from, xid, at, event.id, file_of(stream, at)))
            note_settled(stream, event.id, route->id);
        else
            found = true;
    }
    if (!found) stream->settled_count = before;
    return found;
}

bool wanted_by_parked_key(void* context, const Event& event, uint64 xid, const log::Position& at) {
    const LogParkedKey* parked_key = static_cast<LogStream*>(context)->parked_key;
    if (parked_key->from != nullptr &&
        log::settles(*parked_key->from, xid, at, event.id, file_of(parked_key->stream, at)))
        return false;
    bool found = event.topic.empty();
    GuestError error;
    catch_guest(error, [&] {
        found = found || (parked_key->takes->takes(event) && parked_key->of->filter->matches(event.topic));
    });
    return found || error.kind != GuestError::Kind::none;
}

// True if the chunk is not to be offered: it comes again, and the driver of the next sender knows that its events may
// have been sent already.
bool is_repetition(const LogStream* stream) {
    if (!log::must_begin_again(stream->reader)) return false;
    begin_again();
    return true;
}

}  // namespace

log::Filter filter_of(LogStream* stream) {
    if (stream->parked_key != nullptr) return {wanted_by_parked_key, stream};
    gather(stream);
    stream->settled_count = 0;
    return {wanted, stream};
}

void free_takers(LogStream* stream) {
    call_guest([&] { delete stream->index; });
    stream->index = nullptr;
    if (stream->takers != nullptr) pfree(stream->takers);
    if (stream->settled != nullptr) pfree(stream->settled);
    stream->takers = nullptr;
    stream->settled = nullptr;
    stream->taker_count = stream->come_with = stream->settled_count = stream->settled_room = 0;
    stream->takes_all = false;
}

void lend(LogStream* stream, log::Chunk* chunk) {
    stream->append(chunk);
    // What it really takes: the rows as they were read are kept, of events that nobody takes as well.
    chunk->held = MemoryContextMemAllocated(chunk->memory, true);
    log_now.lent_bytes += chunk->held;
    if (is_repetition(stream)) return;  // it stays what keeps the cursors where they are
    Size tickets = call_guest([&] {
        std::vector<delivery::Chunk::Settled> settled;
        for (int i = 0; i < stream->settled_count; ++i) {
            const SettledBefore& one = stream->settled[i];
            const Event* found = log::find_in(chunk, one.event);
            if (found == nullptr) continue;
            settled.push_back(
                {static_cast<delivery::RouteId>(one.route_id), static_cast<std::uint32_t>(found - chunk->events)});
        }
        return sender.dispatcher->lend(stream->id,
                                       {chunk->id, {chunk->events, chunk->count}, chunk->committed_after, settled});
    });
    chunk->held += tickets * delivery::bytes_a_ticket;
    log_now.lent_bytes += tickets * delivery::bytes_a_ticket;
    stream->tickets_each = tickets / chunk->count + 1;
    stream->settled_count = 0;
}

}  // namespace eventbus::sender
