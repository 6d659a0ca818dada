// What it is: a part of a route that is parked: a key that the broker refuses for long, or some events without one.
// Who calls it: the sources, for what is the same whichever it is.
// Never: lets the row of one go before its route's cursor has passed what the part had settled.
//
// The dispatcher delivers it beside its route (delivery/README.md), on a stream of its own, which its source fills: with
// what the route is handed, a little at a time. It ends where it has caught up with its route, which takes the key again.
#pragma once

#include "sender/sender.hpp"

namespace eventbus::sender {

struct ParkedPart {
    SenderRoute* route;
    delivery::DetourId number;
    const delivery::Detour* takes;
    log::StoredCursor stored;
    bool ended;  // it has caught up, and the route has taken the key again; it goes when the route's cursor has passed
    bool going;  // what is being written says that it goes
};

inline delivery::RouteId id_of(const ParkedPart* part) {
    return static_cast<delivery::RouteId>(part->route->id);
}
// parts: of ParkedPart*, by number.
delivery::DetourId next_number(const List* parts);
// The route parts with what blocks it; the stream begins where the route was settled before.
void begin_part(ParkedPart* part, delivery::StreamId stream);
// Those of earlier times; make() gives each its stream. Within a transaction, between SPI_connect and SPI_finish.
using MakePart = ParkedPart* (*)(SenderRoute* route, delivery::DetourId number, const log::StoredCursor& stored,
                                 delivery::StreamId* stream);
void load_parts(SenderRoute* route, MakePart make);
void end_part(ParkedPart* part);
void remove_part(const ParkedPart* part);
delivery::RouteStatus status_of(const ParkedPart* part);
// What it takes, for its row.
log::DetourEvents events_of(const ParkedPart* part);

}  // namespace eventbus::sender
