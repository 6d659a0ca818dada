// What it is: a parked key of a route, and its row among the cursors, whichever source the route has.
// Who calls it: the sources.
// Never: lets the row go before its route's cursor has passed what was settled of it.
#pragma once

#include "sender/sender.hpp"
#include "source/parked.hpp"

namespace eventbus::sender {

struct ParkedKey : source::Parked {
    SenderRoute* of;
    log::StoredCursor stored;
    bool going;  // what is being written says that it goes
};

void init_parked_key(ParkedKey* key, SenderRoute* route, delivery::DetourId number);
// keys: of ParkedKey*, by number.
delivery::DetourId next_number(const List* keys);
void begin_key(ParkedKey* key, delivery::StreamId stream);
// Those of earlier times; make() gives each its stream. Within a transaction, between SPI_connect and SPI_finish.
using MakeKey = ParkedKey* (*)(SenderRoute* route, delivery::DetourId number, const log::StoredCursor& stored,
                               delivery::StreamId* stream);
void load_keys(SenderRoute* route, bool of_wal, MakeKey make);
void end_key(ParkedKey* key);
void remove_key(const ParkedKey* key);
delivery::RouteStatus status_of(const ParkedKey* key);
// What it takes, for its row.
log::DetourEvents events_of(const ParkedKey* key);

}  // namespace eventbus::sender
