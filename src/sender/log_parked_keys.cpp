// What it is: detours: their streams, when they read, when they meet their route, their rows among the cursors.
// Who calls it: the sender's loop.
// Never: lets a route's cursor pass what its detour's row does not know.
#include "postgres/guest.hpp"
#include "sender/log_source.hpp"
#include "source/log/together.hpp"

namespace eventbus::sender {

namespace {

SenderDetour* make_detour(SenderRoute* route, delivery::DetourId number, const log::Cursor& from) {
    auto* detour = static_cast<SenderDetour*>(MemoryContextAllocZero(sender.memory, sizeof(SenderDetour)));
    init_parked_key(detour, route, number);
    detour->first_generation = from.first_generation;
    log::Cursor place = from;
    place.creator_xid = 0;
    place.creator_id = 0;
    detour->stream = make_stream(log::open_reader(place, &sender.place->log, sender.memory));
    detour->from = remember_from(detour->stream->reader, from);
    detour->stream->detour = detour;
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    log_of(route)->detours = lappend(log_of(route)->detours, detour);
    MemoryContextSwitchTo(before);
    return detour;
}

void forget(log::Cursor* from) {
    if (from == nullptr) return;
    log::free_cursor(from);
    pfree(from);
}

void free_detour(SenderDetour* detour) {
    detour->stream->detour = nullptr;
    log::free_snapshot(&detour->known);
    log::free_snapshot(&detour->behind);
    forget(detour->from);
    pfree(detour);
}

SavedDetour said_by(const log::Cursor& cursor, const log::Ids& settled) {
    return {cursor.done.xmax, cursor.done.count, cursor.in_batch,         cursor.batch.xmax, cursor.batch.count,
            cursor.start,     cursor.settled_id, cursor.first_generation, settled.count};
}

}  // namespace

bool begin_detour(SenderRoute* route) {
    if (is_skipping()) return false;  // when that is over
    delivery::RouteStatus status = status_of(route);
    // Its stream begins where the route's is, for what the route has settled since it came there is not to come again.
    SenderDetour* detour =
        make_detour(route, next_number(log_of(route)->detours),
                    log::skipped_to(cursor_at(log_of(route)->stream, status.settled), log_of(route)->first_generation));
    if (log_of(route)->from != nullptr) {
        forget(detour->from);
        detour->from = static_cast<log::Cursor*>(MemoryContextAlloc(sender.memory, sizeof(log::Cursor)));
        *detour->from = log::copy_cursor(*log_of(route)->from, sender.memory);
    }
    begin_key(detour, detour->stream->id);
    return true;
}

delivery::Detour made_of(const log::DetourEvents& events) {
    delivery::Detour made;
    if (events.has_key) made.key = events.key;
    made.events.assign(events.events.first, events.events.first + events.events.count);
    made.settled.assign(events.settled.first, events.settled.first + events.settled.count);
    return made;
}

void load_detours(SenderRoute* route) {
    load_keys(route, false,
              [](SenderRoute* of, delivery::DetourId number, const log::StoredCursor& stored,
                 delivery::StreamId* stream) -> ParkedKey* {
                  SenderDetour* detour = make_detour(of, number, stored.cursor);
                  detour->known = log::take_snapshot(GetActiveSnapshot(), sender.memory);
                  *stream = detour->stream->id;
                  return detour;
              });
}

void forget_detours(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, log_of(route)->detours) free_detour(static_cast<SenderDetour*>(lfirst(cell)));
    list_free(log_of(route)->detours);
    log_of(route)->detours = NIL;
}

void tell_room() {
    if (is_skipping()) return;
    ListCell* cell;
    foreach (cell, log_now.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        if (stream->is_empty()) continue;
        bool closed = !has_room(stream);
        call_guest([&] { sender.dispatcher->close_stream(stream->id, closed); });
    }
}

void end_detours() {
    if (is_skipping()) return;
    ListCell* cell;
    foreach (cell, log_now.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        SenderDetour* detour = stream->detour;
        if (detour == nullptr || detour->ended || !stream->is_empty()) continue;
        log::Reader* routes = log_of(detour->of)->stream->reader;
        // After a restart they may meet before the place where the route was earlier, and where some are settled.
        if (!log::same_place(stream->reader, routes) || log::is_later(detour->known, log::horizon_of(routes))) continue;
        end_key(detour);
        detour->behind = log::copy_snapshot(log::horizon_of(routes), sender.memory);
    }
}

// The one that was read the longest ago, of those that have nothing left to deliver and whose route is further on.
LogStream* detour_to_read() {
    LogStream* found = nullptr;
    ListCell* cell;
    foreach (cell, log_now.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        const SenderDetour* detour = stream->detour;
        if (detour == nullptr || detour->ended || !stream->is_empty() || stream->skip_to != 0) continue;
        if (!log::in_batch(stream->reader) &&
            !log::is_later(log::horizon_of(log_of(detour->of)->stream->reader), log::horizon_of(stream->reader)))
            continue;
        if (found == nullptr || stream->looked_at < found->looked_at) found = stream;
    }
    return found;
}

void save_detours(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, log_of(route)->detours) {
        auto* detour = static_cast<SenderDetour*>(lfirst(cell));
        detour->going = detour->ended && !log::is_later(detour->behind, route->stored.cursor.done);
        detour->saving = detour->saved;
        if (detour->going) {
            if (detour->stored.exists) log::delete_cursor(detour->stored);
            continue;
        }
        delivery::RouteStatus status = status_of(detour);
        note_progress(&detour->progress, detour->stream, status.settled);
        log::Cursor place = cursor_at(detour->stream, status.settled);
        detour->stored.cursor = log::skipped_to(cursor_with(detour->from, place), detour->first_generation);
        log::DetourEvents events = events_of(detour);
        SavedDetour now = said_by(detour->stored.cursor, events.settled);
        if (detour->stored.exists && detour->saved == now) continue;
        (void)log::save_cursor(&detour->stored, &events);
        detour->saving = now;
        forget_from(&detour->from, place);
    }
}

void detours_saved(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, log_of(route)->detours) {
        auto* detour = static_cast<SenderDetour*>(lfirst(cell));
        detour->saved = detour->saving;
        if (!detour->going) continue;
        remove_key(detour);
        log_of(route)->detours = foreach_delete_current(log_of(route)->detours, cell);
        free_detour(detour);
    }
}

}  // namespace eventbus::sender
