// What it is: counting, by topic, the events of a segment that no route took, while it is looked at to be truncated.
// Who calls it: rotation.
// Never: reads a page by itself, or keeps a segment from being truncated.
#pragma once

#include "source/log/tuple.hpp"

namespace eventbus::log {

// Which events are some route's, paused and held ones among them.
struct Takers {
    static constexpr int64 never = PG_INT64_MAX;
    int64 everything_from = never;  // events of any topic with this id, or a higher one, are;
    // the same of a topic, in UTF-8. Never ereports.
    int64 (*taken_from)(void* context, std::string_view topic);
    void* context;
};

// Within a transaction, between SPI_connect and SPI_finish. `routes` is another text whenever routes have changed.
using ReadTakers = Takers (*)(const char* routes);

struct Tally;

// In the current memory context. nullptr: there is nothing to count. Events up to the id `after` are not looked at.
Tally* begin_tally(const Takers& takers, int64 after);
// An event of a finished transaction, from the segment's last one backwards. The tuple may be on a page.
void note(Tally* tally, HeapTupleHeader tuple);
// Before anything is locked that others wait for: whether the table is there to be written, without waiting for it.
bool may_write(const Tally* tally);
// Adds what was counted, in the transaction that truncates the segment; what fails is undone, told once, and release.
void write(const Tally* tally);

}  // namespace eventbus::log
