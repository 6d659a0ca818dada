// What it is: NOTICEs of what goes with a route: events that wait for it, and its dead letters.
// Who calls it: drop_route, drop_broker.
// Never: drops anything, or keeps anybody from it: what cannot be counted now is said not to be known.
#pragma once

#include "postgres/prelude.hpp"

namespace eventbus::catalog {

// SQL, of columns of eventbus.delivery_status(): "3 events", "about 40000 events".
#define EVENTBUS_EVENTS_WAITING                                                                                       \
    "format('%s%s event%s', CASE WHEN waiting_estimated THEN 'about ' END, events_waiting, CASE WHEN events_waiting " \
    "<> 1 THEN 's' END)"

// Nothing where nothing goes with it.
void tell_of_route_that_goes(int32 id, const char* name);
// Of each of a broker's routes that it is dropped, and the same.
void tell_of_routes_that_go(int32 broker_id, const char* broker);

}  // namespace eventbus::catalog
