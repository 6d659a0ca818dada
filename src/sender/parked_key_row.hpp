// What it is: a parked key of a route, and its row among the cursors, whichever source the route has.
// Who calls it: the sources.
// Never: lets the row go before its route's cursor has passed what was settled of it.
#pragma once

#include "sender/sender.hpp"
#include "source/parked.hpp"

namespace eventbus::sender {

struct ParkedKeyRow : source::ParkedPart {
    SenderRoute* of;
    cursors::Row row;
    bool going;  // what is being written says that it goes
};

void init_parked_key(ParkedKeyRow* key, SenderRoute* route, delivery::ParkedKeyId number);
// keys: of ParkedKeyRow*, by number.
delivery::ParkedKeyId next_number(const List* keys);
void begin_key(ParkedKeyRow* key, delivery::StreamId stream);
// Those of earlier times; make() loads the row of each, and gives it its stream. Within a transaction, between
// SPI_connect and SPI_finish.
using MakeKey = ParkedKeyRow* (*)(SenderRoute* route, delivery::ParkedKeyId number, delivery::StreamId* stream);
void load_keys(SenderRoute* route, MakeKey make);
void end_key(ParkedKeyRow* key);
void remove_key(const ParkedKeyRow* key);
delivery::RouteStatus status_of(const ParkedKeyRow* key);
// What it takes, for its row.
cursors::ParkedEvents events_of(const ParkedKeyRow* key);

}  // namespace eventbus::sender
