#include "sender/parked_key_row.hpp"

#include "postgres/guest.hpp"

namespace eventbus::sender {

void init_parked_key(ParkedKeyRow* key, SenderRoute* route, delivery::ParkedKeyId number) {
    key->of = route;
    key->route = static_cast<delivery::RouteId>(route->id);
    key->number = number;
    key->row.route_id = route->id;
    key->row.parked_key = static_cast<int32>(number);
}

delivery::ParkedKeyId next_number(const List* keys) {
    return keys == NIL ? 1 : static_cast<const ParkedKeyRow*>(llast(keys))->number + 1;
}

void begin_key(ParkedKeyRow* key, delivery::StreamId stream) {
    call_guest([&] { key->begin(*sender.dispatcher, stream); });
    sender.unsaved = true;
}

void load_keys(SenderRoute* route, MakeKey make) {
    int32* numbers;
    cursors::ParkedEvents* events;
    int count = cursors::load_parked_keys(route->id, CurTransactionContext, &numbers, &events);
    for (int i = 0; i < count; ++i) {
        delivery::StreamId stream;
        ParkedKeyRow* key = make(route, static_cast<delivery::ParkedKeyId>(numbers[i]), &stream);
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

cursors::ParkedEvents events_of(const ParkedKeyRow* key) {
    return call_guest([&] {
        cursors::ParkedEvents events = {};
        auto ids = [](std::span<const EventId> of) { return cursors::Ids{of.data(), static_cast<int>(of.size())}; };
        events.has_key = key->takes->key.has_value();
        if (events.has_key) events.key = *key->takes->key;
        events.events = ids(key->takes->events);
        events.settled = ids(sender.dispatcher->settled_ahead(key->route, key->number));
        return events;
    });
}

}  // namespace eventbus::sender
