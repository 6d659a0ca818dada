#include "sender/parked_part.hpp"

#include "postgres/guest.hpp"

namespace eventbus::sender {

delivery::DetourId next_number(const List* parts) {
    return parts == NIL ? 1 : static_cast<const ParkedPart*>(llast(parts))->number + 1;
}

void begin_part(ParkedPart* part, delivery::StreamId stream) {
    call_guest([&] {
        sender.dispatcher->begin_detour(id_of(part), part->number, stream);
        part->takes = &sender.dispatcher->detour(id_of(part), part->number);
    });
    sender.unsaved = true;
}

void load_parts(SenderRoute* route, MakePart make) {
    int32* numbers;
    log::DetourEvents* events;
    int count = log::load_detours(route->id, CurTransactionContext, &numbers, &events);
    for (int i = 0; i < count; ++i) {
        log::StoredCursor stored;
        log::load_cursor(route->id, numbers[i], CurTransactionContext, &stored);
        delivery::StreamId stream;
        ParkedPart* part = make(route, static_cast<delivery::DetourId>(numbers[i]), stored, &stream);
        part->stored.exists = true;
        part->stored.place = stored.place;
        call_guest([&] {
            delivery::Detour taken;
            if (events[i].has_key) taken.key = events[i].key;
            taken.events.assign(events[i].events.first, events[i].events.first + events[i].events.count);
            taken.settled.assign(events[i].settled.first, events[i].settled.first + events[i].settled.count);
            sender.dispatcher->add_detour(id_of(part), part->number, stream, std::move(taken));
            part->takes = &sender.dispatcher->detour(id_of(part), part->number);
        });
    }
}

void end_part(ParkedPart* part) {
    call_guest([&] { sender.dispatcher->end_detour(id_of(part), part->number); });
    part->ended = true;
    sender.unsaved = true;
}

void remove_part(const ParkedPart* part) {
    call_guest([&] { sender.dispatcher->remove_detour(id_of(part), part->number); });
}

delivery::RouteStatus status_of(const ParkedPart* part) {
    return call_guest([&] { return sender.dispatcher->status(id_of(part), part->number); });
}

log::DetourEvents events_of(const ParkedPart* part) {
    return call_guest([&] {
        log::DetourEvents events = {};
        auto ids = [](std::span<const std::int64_t> of) { return log::Ids{of.data(), static_cast<int>(of.size())}; };
        events.has_key = part->takes->key.has_value();
        if (events.has_key) events.key = *part->takes->key;
        events.events = ids(part->takes->events);
        events.settled = ids(sender.dispatcher->settled_ahead(id_of(part), part->number));
        return events;
    });
}

}  // namespace eventbus::sender
