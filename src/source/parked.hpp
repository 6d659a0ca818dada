// What it is: a part of a route that is parked: a key that the broker refuses for long, or some events without one.
// Who calls it: the sources, for what is the same whichever it is.
// Never: reads anything; what a parked part is handed, its source says.
//
// The dispatcher delivers it beside its route (delivery/README.md), on a stream of its own, which the source fills with
// what the route is handed, a little at a time. It ends where it has caught up with its route, which takes the key
// again; what is written down of it goes when the route's cursor has passed the place where that was.
#pragma once

#include "delivery/dispatcher.hpp"

namespace eventbus::source {

struct ParkedPart {
    delivery::RouteId route;
    delivery::ParkedKeyId number;  // of the route's, rising
    const delivery::ParkedKey* takes;
    bool ended;  // it has caught up

    // The route parts with what blocks it; the stream begins where the route was settled before.
    void begin(delivery::Dispatcher& dispatcher, delivery::StreamId stream);
    // One of earlier times: nothing has been handed over to the route yet.
    void resume(delivery::Dispatcher& dispatcher, delivery::StreamId stream, delivery::ParkedKey what);
    void end(delivery::Dispatcher& dispatcher);
    delivery::RouteStatus status(const delivery::Dispatcher& dispatcher) const {
        return dispatcher.status(route, number);
    }
};

}  // namespace eventbus::source
