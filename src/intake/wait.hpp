// What it is: what waiting for delivery is, of an event of the log or of all that the WAL has before a place.
// Who calls it: wait.cpp and wait_wal.cpp.
// Never: is used outside of this room.
#pragma once

#include "counters/shared.hpp"
#include "source/log/find.hpp"

namespace eventbus::intake {

struct WaitedRoute {
    int32 id;
    counters::Answer answer;
};

struct Wait {
    EventId id;              // counters::Wanted's
    const char* route_name;  // or nullptr: all
    SteadyTime until;
    log::FoundEvent event;
    counters::Waiter* waiter;
    WaitedRoute* routes;  // that are waited for, in order of id
    int count;            // of them; -1: not known yet
    WaitedRoute* asked[counters::most_wanted];
    int asked_count;
};

enum class Outcome : unsigned char { delivered, not_delivered, pending };

// The route with that id among those that are waited for, or nullptr: it has come since.
WaitedRoute* find_waited(const Wait& wait, int32 id);

[[noreturn]] void refuse_null(const char* argument);
[[noreturn]] void refuse_route(const char* name);

// The arguments that all forms have, behind the first, which is called `what`.
Wait read_wait(FunctionCallInfo fcinfo, const char* what);
// Takes the answers that have come. False where one is settled that was not before: its dead letter may have been
// stored since the tables were read.
bool note_answers(Wait* wait);
// `look` reads the tables; it is called again whenever something has changed. Returns whether all is delivered in time.
bool wait_until_settled(Wait* wait, Outcome (*look)(Wait*));
// Waits for an event of the log.
bool wait_for_event(Wait* wait);

}  // namespace eventbus::intake
