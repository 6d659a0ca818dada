// What it is: detours: their streams, when they read, when they meet their route, their rows among the cursors.
// Who calls it: the sender's loop.
// Never: lets a route's cursor pass what its detour's row does not know.
#include "postgres/guest.hpp"
#include "sender/sender.hpp"
#include "sender/wal_parked_keys.hpp"
#include "source/log/together.hpp"

namespace eventbus::sender {

namespace {

delivery::RouteId id_of(const SenderDetour* detour) {
    return static_cast<delivery::RouteId>(detour->route->id);
}

SenderDetour* make_detour(SenderRoute* route, delivery::DetourId number, const log::Cursor& from) {
    auto* detour = static_cast<SenderDetour*>(MemoryContextAllocZero(sender.memory, sizeof(SenderDetour)));
    detour->route = route;
    detour->number = number;
    detour->stored.route_id = route->id;
    detour->stored.detour = static_cast<int32>(number);
    detour->first_generation = from.first_generation;
    log::Cursor place = from;
    place.creator_xid = 0;
    place.creator_id = 0;
    detour->stream = make_stream(log::open_reader(place, &sender.place->log, sender.memory));
    detour->from = remember_from(detour->stream->reader, from);
    detour->stream->detour = detour;
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    route->detours = lappend(route->detours, detour);
    MemoryContextSwitchTo(before);
    return detour;
}

void forget(log::Cursor* from) {
    if (from == nullptr) return;
    log::free_cursor(from);
    pfree(from);
}

void begin(SenderRoute* route) {
    delivery::RouteStatus status =
        call_guest([&] { return sender.dispatcher->status(static_cast<delivery::RouteId>(route->id)); });
    delivery::DetourId number =
        route->detours == NIL ? 1 : static_cast<SenderDetour*>(llast(route->detours))->number + 1;
    // Its stream begins where the route's is, for what the route has settled since it came there is not to come again.
    SenderDetour* detour =
        make_detour(route, number, log::skipped_to(cursor_at(route->stream, status.settled), route->first_generation));
    if (route->from != nullptr) {
        forget(detour->from);
        detour->from = static_cast<log::Cursor*>(MemoryContextAlloc(sender.memory, sizeof(log::Cursor)));
        *detour->from = log::copy_cursor(*route->from, sender.memory);
    }
    call_guest([&] {
        sender.dispatcher->begin_detour(id_of(detour), number, detour->stream->id);
        detour->takes = &sender.dispatcher->detour(id_of(detour), number);
    });
    sender.unsaved = true;
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

log::DetourEvents detour_events(const delivery::Detour* takes, delivery::RouteId id, delivery::DetourId number) {
    return call_guest([&] {
        log::DetourEvents events = {};
        auto ids = [](std::span<const EventId> of) { return log::Ids{of.data(), static_cast<int>(of.size())}; };
        events.has_key = takes->key.has_value();
        if (events.has_key) events.key = *takes->key;
        events.events = ids(takes->events);
        events.settled = ids(sender.dispatcher->settled_ahead(id, number));
        return events;
    });
}

delivery::Detour made_of(const log::DetourEvents& events) {
    delivery::Detour made;
    if (events.has_key) made.key = events.key;
    made.events.assign(events.events.first, events.events.first + events.events.count);
    made.settled.assign(events.settled.first, events.settled.first + events.settled.count);
    return made;
}

void load_detours(SenderRoute* route) {
    int32* numbers;
    log::DetourEvents* events;
    int count = log::load_detours(route->id, false, CurTransactionContext, &numbers, &events);
    for (int i = 0; i < count; ++i) {
        log::StoredCursor stored;
        log::load_cursor(route->id, numbers[i], CurTransactionContext, &stored);
        SenderDetour* detour = make_detour(route, static_cast<delivery::DetourId>(numbers[i]), stored.cursor);
        detour->known = log::take_snapshot(GetActiveSnapshot(), sender.memory);
        detour->stored.exists = true;
        detour->stored.place = stored.place;
        call_guest([&] {
            sender.dispatcher->add_detour(id_of(detour), detour->number, detour->stream->id, made_of(events[i]));
            detour->takes = &sender.dispatcher->detour(id_of(detour), detour->number);
        });
    }
}

void forget_detours(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, route->detours) free_detour(static_cast<SenderDetour*>(lfirst(cell)));
    list_free(route->detours);
    route->detours = NIL;
}

void arrange_detours() {
    ListCell* cell;
    foreach (cell, sender.streams)
        if (static_cast<LogStream*>(lfirst(cell))->skip_to != 0) return;  // when that is over
    foreach (cell, sender.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        if (stream->lent == NIL) continue;
        bool closed = !has_room(stream);
        call_guest([&] { sender.dispatcher->close_stream(stream->id, closed); });
    }
    for (bool waits = false; !waits;) {
        std::optional<delivery::RouteId> stuck = call_guest([] { return sender.dispatcher->stuck(); });
        if (!stuck) break;
        foreach (cell, sender.routes) {
            auto* route = static_cast<SenderRoute*>(lfirst(cell));
            if (static_cast<delivery::RouteId>(route->id) != *stuck) continue;
            if (route->wal == nullptr)
                begin(route);
            else
                waits = !begin_wal_detour(route);
        }
    }
    foreach (cell, sender.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        SenderDetour* detour = stream->detour;
        if (detour == nullptr || detour->ended || stream->lent != NIL) continue;
        log::Reader* routes = detour->route->stream->reader;
        // After a restart they may meet before the place where the route was earlier, and where some are settled.
        if (!log::same_place(stream->reader, routes) || log::is_later(detour->known, log::horizon_of(routes))) continue;
        call_guest([&] { sender.dispatcher->end_detour(id_of(detour), detour->number); });
        detour->ended = true;
        detour->behind = log::copy_snapshot(log::horizon_of(routes), sender.memory);
        sender.unsaved = true;
    }
}

// The one that was read the longest ago, of those that have nothing left to deliver and whose route is further on.
LogStream* detour_to_read() {
    LogStream* found = nullptr;
    ListCell* cell;
    foreach (cell, sender.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        const SenderDetour* detour = stream->detour;
        if (detour == nullptr || detour->ended || stream->lent != NIL || stream->skip_to != 0) continue;
        if (!log::in_batch(stream->reader) &&
            !log::is_later(log::horizon_of(detour->route->stream->reader), log::horizon_of(stream->reader)))
            continue;
        if (found == nullptr || stream->looked_at < found->looked_at) found = stream;
    }
    return found;
}

void save_detours(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, route->detours) {
        auto* detour = static_cast<SenderDetour*>(lfirst(cell));
        detour->going = detour->ended && !log::is_later(detour->behind, route->stored.cursor.done);
        detour->saving = detour->saved;
        if (detour->going) {
            if (detour->stored.exists) log::delete_cursor(detour->stored);
            continue;
        }
        delivery::RouteStatus status =
            call_guest([&] { return sender.dispatcher->status(id_of(detour), detour->number); });
        note_progress(&detour->progress, detour->stream, status.settled);
        log::Cursor place = cursor_at(detour->stream, status.settled);
        detour->stored.cursor = log::skipped_to(cursor_with(detour->from, place), detour->first_generation);
        log::DetourEvents events = detour_events(detour->takes, id_of(detour), detour->number);
        SavedDetour now = said_by(detour->stored.cursor, events.settled);
        if (detour->stored.exists && detour->saved == now) continue;
        (void)log::save_cursor(&detour->stored, &events);
        detour->saving = now;
        forget_from(&detour->from, place);
    }
}

void detours_saved(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, route->detours) {
        auto* detour = static_cast<SenderDetour*>(lfirst(cell));
        detour->saved = detour->saving;
        if (!detour->going) continue;
        call_guest([&] { sender.dispatcher->remove_detour(id_of(detour), detour->number); });
        route->detours = foreach_delete_current(route->detours, cell);
        free_detour(detour);
    }
}

}  // namespace eventbus::sender
