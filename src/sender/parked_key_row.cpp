#include "sender/parked_key_row.hpp"

#include "postgres/guest.hpp"

namespace eventbus::sender {

void init_parked_key(ParkedKeyRow* key, SenderRoute* route, delivery::ParkedKeyId number) {
    key->of = route;
    key->route = static_cast<delivery::RouteId>(route->id);
    key->number = number;
    key->stored.route_id = route->id;
    key->stored.parked_key = static_cast<int32>(number);
}

delivery::ParkedKeyId next_number(const List* keys) {
    return keys == NIL ? 1 : static_cast<const ParkedKeyRow*>(llast(keys))->number + 1;
}

void begin_key(ParkedKeyRow* key, delivery::StreamId stream) {
    call_guest([&] { key->begin(*sender.dispatcher, stream); });
    sender.unsaved = true;
}

void load_keys(SenderRoute* route, bool of_wal, MakeKey make) {
    int32* numbers;
    log::ParkedEvents* events;
    int count = log::load_parked_keys(route->id, of_wal, CurTransactionContext, &numbers, &events);
    for (int i = 0; i < count; ++i) {
        log::StoredCursor stored;
        log::load_cursor(route->id, numbers[i], CurTransactionContext, &stored);
        delivery::StreamId stream;
        ParkedKeyRow* key = make(route, static_cast<delivery::ParkedKeyId>(numbers[i]), stored, &stream);
        key->stored.exists = true;
        key->stored.place = stored.place;
        call_guest([&] {
            delivery::ParkedKey taken;
            if (events[i].has_key) taken.key = events[i].key;
            taken.events.assign(events[i].events.first, events[i].events.first + events[i].events.count);
            taken.settled.assign(events[i].settled.first, events[i].settled.first + events[i].settled.count);
            key->resume(*sender.dispatcher, stream, std::move(taken));
        });
    }
}

void end_key(ParkedKeyRow* key) {
    call_guest([&] { key->end(*sender.dispatcher); });
    sender.unsaved = true;
}

void remove_key(const ParkedKeyRow* key) {
    call_guest([&] { sender.dispatcher->remove_parked_key(key->route, key->number); });
}

delivery::RouteStatus status_of(const ParkedKeyRow* key) {
    return call_guest([&] { return key->status(*sender.dispatcher); });
}

log::ParkedEvents events_of(const ParkedKeyRow* key) {
    return call_guest([&] {
        log::ParkedEvents events = {};
        auto ids = [](std::span<const EventId> of) { return log::Ids{of.data(), static_cast<int>(of.size())}; };
        events.has_key = key->takes->key.has_value();
        if (events.has_key) events.key = *key->takes->key;
        events.events = ids(key->takes->events);
        events.settled = ids(sender.dispatcher->settled_ahead(key->route, key->number));
        return events;
    });
}

}  // namespace eventbus::sender
