// What it is: dead letters that an operator wants sent again: batches of them, on a stream of their own.
// Who calls it: the sender's loop, and whoever gives back what has been delivered.
// Never: forgets a dead letter that has not arrived; waits for an operator's transaction.
#include <algorithm>

#include "catalog/dead_letters.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "processes/process.hpp"
#include "sender/sender.hpp"

namespace eventbus::sender {

namespace {

constexpr int most_at_a_time = 100;
constexpr int64 most_bytes = 8 * 1024 * 1024;
constexpr int patience_ms = 100;  // with who drops the route in a transaction that stays open

bool some_wait;  // for locks

// A batch that was given up, until the dispatcher has done with its events.
struct GivenUp {
    delivery::StreamId stream;
    MemoryContext memory;
};
List* given_up;

// What takes the place of the batch that is through, once that is committed.
struct Next {
    SenderRoute* route;
    MemoryContext memory;
    Event* events;
    int count;
    bool gone;  // the extension is
};

// After the last one, in the order of ids; and from the beginning again, for some before may have been refused again
// and asked for once more meanwhile.
void take(void* argument) {
    auto* next = static_cast<Next*>(argument);
    const int32 route_id = next->route->id;
    const Redelivery* through = next->route->redelivery;
    next->gone = !begin_transaction_on_extension("sending dead letters again");
    if (next->gone) return;
    processes::wait_for_locks(patience_ms);
    SPI_connect();
    for (int i = 0; i < through->count; ++i)
        if (!through->refused[i]) catalog::forget_dead_letter(route_id, through->events[i].id);
    next->count =
        catalog::take_requeued(route_id, through->last, most_at_a_time, most_bytes, &next->events, next->memory);
    if (next->count == 0 && through->last != EventId())
        next->count = catalog::take_requeued(route_id, {}, most_at_a_time, most_bytes, &next->events, next->memory);
    SPI_finish();
    commit_transaction();
}

void end(SenderRoute* route) {
    delivery::RouteStatus counted = call_guest([&] { return sender.dispatcher->status(redelivery_route(route->id)); });
    route->base.delivered += static_cast<int64>(counted.delivered);
    route->base.dead += static_cast<int64>(counted.dead);
    route->base.retries += static_cast<int64>(counted.retries);
    route->redelivered_at = std::max(route->redelivered_at, counted.last_delivered_at);
    call_guest([&] { sender.dispatcher->remove_route(redelivery_route(route->id)); });
    if (route->redelivery->count == 0) {
        MemoryContextDelete(route->redelivery->memory);
    } else {
        MemoryContext before = MemoryContextSwitchTo(sender.memory);
        auto* batch = static_cast<GivenUp*>(palloc(sizeof(GivenUp)));
        *batch = {route->redelivery->stream, route->redelivery->memory};
        given_up = lappend(given_up, batch);
        MemoryContextSwitchTo(before);
    }
    pfree(route->redelivery);
    route->redelivery = nullptr;
}

// Whether some that the sender has are there no more. Then those that have arrived are forgotten: the others go again.
struct Look {
    SenderRoute* route;
    bool discarded;
};

void look(void* argument) {
    auto* look = static_cast<Look*>(argument);
    const SenderRoute* route = look->route;
    const Redelivery* has = route->redelivery;
    if (!begin_transaction_on_extension("looking for dead letters that were discarded")) return;
    processes::wait_for_locks(patience_ms);
    SPI_connect();
    auto* waiting = static_cast<EventId*>(palloc(sizeof(EventId) * static_cast<Size>(has->count)));
    int count = 0;
    List* arrived = NIL;
    for (int i = 0; i < has->count; ++i) {
        if (has->refused[i]) continue;
        const delivery::Position at{has->next_chunk - 1, static_cast<std::uint32_t>(i)};
        if (call_guest([&] { return sender.dispatcher->is_settled(redelivery_route(route->id), at); }))
            arrived = lappend_int(arrived, i);
        else
            waiting[count++] = has->events[i].id;
    }
    look->discarded = count > 0 && catalog::count_requeued(route->id, waiting, count) < count;
    ListCell* cell;
    if (look->discarded)
        foreach (cell, arrived) catalog::forget_dead_letter(route->id, has->events[lfirst_int(cell)].id);
    SPI_finish();
    commit_transaction();
}

}  // namespace

void end_if_discarded(SenderRoute* route) {
    if (route->redelivery == nullptr || route->redelivery->count == 0 || letters_wait()) return;
    // What is under way would go twice.
    if (call_guest([&] { return sender.dispatcher->status(redelivery_route(route->id)).in_flight; }) > 0) return;
    Look looked = {route, false};
    if (ErrorData* error = processes::survive(look, &looked)) {
        if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE) ReThrowError(error);
        FreeErrorData(error);
        return;
    }
    if (looked.discarded) end(route);
}

void note_refused_again(const delivery::DeadLetter& letter) {
    ListCell* cell;
    foreach (cell, sender.routes) {
        const auto* route = static_cast<const SenderRoute*>(lfirst(cell));
        if (route->redelivery == nullptr || route->redelivery->stream != letter.stream) continue;
        route->redelivery->refused[letter.event - route->redelivery->events] = true;
    }
}

// The ones before have arrived, or have been stored again.
void feed_redelivery(SenderRoute* route) {
    constexpr int again_ms = 1000;
    Redelivery* redelivery = route->redelivery;
    Next next = {route, nullptr, nullptr, 0, false};
    next.memory = AllocSetContextCreate(sender.memory, "pg_eventbus redelivery", ALLOCSET_DEFAULT_SIZES);
    ErrorData* error = processes::survive(take, &next);
    redelivery->retry_at = 0;
    if (error != nullptr || next.gone) MemoryContextDelete(next.memory);
    if (next.gone) return;
    if (error != nullptr) {
        if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE) ReThrowError(error);
        FreeErrorData(error);
        redelivery->retry_at = plus_ms(steady_now(), again_ms);
        some_wait = true;
        return;
    }
    if (redelivery->count > 0) counters::stir_waiters(sender.database);
    if (redelivery->memory != nullptr) MemoryContextDelete(redelivery->memory);
    redelivery->memory = next.memory;
    redelivery->events = next.events;
    redelivery->count = next.count;
    redelivery->refused =
        static_cast<bool*>(MemoryContextAllocZero(next.memory, sizeof(bool) * static_cast<Size>(next.count + 1)));
    if (redelivery->count == 0) return end(route);
    redelivery->last = redelivery->events[redelivery->count - 1].id;
    call_guest([&] {
        sender.dispatcher->lend(
            redelivery->stream,
            {redelivery->next_chunk++, {redelivery->events, static_cast<std::size_t>(redelivery->count)}, 0});
    });
}

void take_back_letters(delivery::StreamId stream) {
    ListCell* cell;
    foreach (cell, given_up) {
        auto* batch = static_cast<GivenUp*>(lfirst(cell));
        if (batch->stream != stream) continue;
        given_up = foreach_delete_current(given_up, cell);
        MemoryContextDelete(batch->memory);
        pfree(batch);
    }
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->redelivery != nullptr && route->redelivery->stream == stream) feed_redelivery(route);
    }
}

long redeliveries_due() {
    long due = -1;
    if (!some_wait) return due;
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->redelivery == nullptr || route->redelivery->retry_at == 0) continue;
        if (steady_now() >= route->redelivery->retry_at) feed_redelivery(route);
        if (route->redelivery == nullptr || route->redelivery->retry_at == 0) continue;
        long ms = std::max<long>(1, ms_until(route->redelivery->retry_at));
        due = due < 0 ? ms : std::min(due, ms);
    }
    some_wait = due >= 0;
    return due;
}

}  // namespace eventbus::sender
