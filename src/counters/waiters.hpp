// What it is: who waits for the delivery of which event: places in shared memory that senders answer.
// Who calls it: eventbus.wait_for_delivery (to wait), the sender (to answer), whoever changes what waiters look at.
// Never: decides whether an event is delivered: a settled event may be a dead letter, which the tables tell.
#pragma once

#include <atomic>
#include <cstdint>

#include "postgres/steady.hpp"
#include "source/log/reader.hpp"

extern "C" {
#include "storage/condition_variable.h"
}

namespace eventbus::counters {

inline constexpr int max_waiters = 256;
inline constexpr int most_wanted = 32;

// What somebody waits for: routes that shall settle an event, or all that commits before a place in the WAL.
struct Wanted {
    Oid database;
    EventId id;  // of an event of the log; or a place in the WAL, without a number
    log::EventPlace place;
    int count;
    std::int32_t routes[most_wanted];
    std::uint32_t settled;   // a bit a route
    std::uint32_t left_out;  // the same
};

// Guarded by the spinlock, but for `changes`.
struct Waiter {
    slock_t mutex;
    Wanted wanted;
    std::atomic<std::uint32_t> changes;  // rises with every answer
    ConditionVariable changed;
};

struct Waiters {
    std::atomic<int> count;                   // nobody looks any further while it is 0
    std::atomic<Oid> databases[max_waiters];  // whose place it is; InvalidOid: free
    Waiter places[max_waiters];
};

void init_waiters(Waiters* waiters);

// The waiting side. nullptr: all places are taken.
Waiter* claim_waiter(const EventId& id, const log::EventPlace& place);
void free_waiter(Waiter* waiter);
// Names the routes, none of them answered for, and wakes the senders.
void want(Waiter* waiter, const std::int32_t* routes, int count);
// What has been answered so far.
Wanted answers_of(Waiter* waiter);
// Sleeps until `changes` is no longer what it was, or the time is over (false).
bool wait_for_change(Waiter* waiter, std::uint32_t seen, SteadyTime until);

// The answering side.
bool anybody_waits();
enum class Answer : std::uint8_t { none, settled, left_out };
using AnswerFor = Answer (*)(const Wanted& wanted, std::int32_t route_id);
void answer_waiters(Oid database, AnswerFor answer_for);
// Something else that waiters look at has changed: dead letters of an event (of any, where none is named), routes,
// transactions.
void stir_waiters(Oid database, const EventId& id = {});

}  // namespace eventbus::counters
