// Never: holds a spinlock while it asks or wakes anybody.
#include "counters/waiters.hpp"

#include <algorithm>
#include <climits>

#include "counters/shared.hpp"

namespace eventbus::counters {

namespace {

Waiters& all() {
    return shared()->waiters;
}

void change(Waiter* waiter) {
    waiter->changes.fetch_add(1);
    ConditionVariableBroadcast(&waiter->changed);
}

// An answer stays as it is: what is left out later had been delivered, and the other way about.
bool answer(Wanted* wanted, AnswerFor answer_for) {
    bool changed = false;
    for (int i = 0; i < wanted->count; ++i) {
        std::uint32_t bit = std::uint32_t{1} << i;
        if (((wanted->settled | wanted->left_out) & bit) != 0) continue;
        Answer answer = answer_for(*wanted, wanted->routes[i]);
        if (answer == Answer::none) continue;
        (answer == Answer::settled ? wanted->settled : wanted->left_out) |= bit;
        changed = true;
    }
    return changed;
}

// The place may be somebody else's by now, or ask for other routes: then the answer is for nobody.
bool put_answer(Waiter* waiter, const Wanted& asked) {
    SpinLockAcquire(&waiter->mutex);
    Wanted& now = waiter->wanted;
    bool same = now.database == asked.database && now.id == asked.id && now.place.xid == asked.place.xid &&
                now.count == asked.count && std::equal(now.routes, now.routes + now.count, asked.routes);
    if (same) {
        now.settled |= asked.settled;
        now.left_out |= asked.left_out;
    }
    SpinLockRelease(&waiter->mutex);
    return same;
}

}  // namespace

void init_waiters(Waiters* waiters) {
    for (Waiter& waiter : waiters->places) {
        SpinLockInit(&waiter.mutex);
        ConditionVariableInit(&waiter.changed);
    }
}

Waiter* claim_waiter(const EventId& id, const log::EventPlace& place) {
    Waiter* claimed = nullptr;
    LWLockAcquire(shared()->lock, LW_EXCLUSIVE);
    for (int i = 0; i < max_waiters && claimed == nullptr; ++i) {
        if (all().databases[i] != InvalidOid) continue;
        claimed = &all().places[i];
        SpinLockAcquire(&claimed->mutex);
        claimed->wanted = {MyDatabaseId, id, place, 0, {}, 0, 0};
        SpinLockRelease(&claimed->mutex);
        all().databases[i] = MyDatabaseId;
        all().count.fetch_add(1);
    }
    LWLockRelease(shared()->lock);
    return claimed;
}

void free_waiter(Waiter* waiter) {
    ConditionVariableCancelSleep();
    SpinLockAcquire(&waiter->mutex);
    waiter->wanted = {};
    SpinLockRelease(&waiter->mutex);
    all().databases[waiter - all().places] = InvalidOid;
    all().count.fetch_sub(1);
}

void want(Waiter* waiter, const std::int32_t* routes, int count) {
    SpinLockAcquire(&waiter->mutex);
    waiter->wanted.count = count;
    std::copy(routes, routes + count, waiter->wanted.routes);
    waiter->wanted.settled = waiter->wanted.left_out = 0;
    SpinLockRelease(&waiter->mutex);
    wake_senders_of(MyDatabaseId);
}

Wanted answers_of(Waiter* waiter) {
    SpinLockAcquire(&waiter->mutex);
    Wanted wanted = waiter->wanted;
    SpinLockRelease(&waiter->mutex);
    return wanted;
}

bool wait_for_change(Waiter* waiter, std::uint32_t seen, SteadyTime until) {
    static uint32 wait_event = compat::wait_event("EventbusWaitForDelivery");
    ConditionVariablePrepareToSleep(&waiter->changed);
    bool in_time = true;
    while (in_time && waiter->changes == seen) {
        long left = ms_until(until);
        in_time = left > 0;
        if (in_time) (void)ConditionVariableTimedSleep(&waiter->changed, std::min<long>(left, INT_MAX), wait_event);
    }
    ConditionVariableCancelSleep();
    return in_time;
}

bool anybody_waits() {
    return shared() != nullptr && all().count.load(std::memory_order_relaxed) != 0;
}

void answer_waiters(Oid database, AnswerFor answer_for) {
    for (int i = 0; i < max_waiters; ++i) {
        if (all().databases[i].load(std::memory_order_relaxed) != database) continue;
        Waiter* waiter = &all().places[i];
        Wanted wanted = answers_of(waiter);
        if (answer(&wanted, answer_for) && put_answer(waiter, wanted)) change(waiter);
    }
}

void stir_waiters(Oid database, const EventId& id) {
    if (!anybody_waits()) return;
    for (int i = 0; i < max_waiters; ++i) {
        if (all().databases[i] != database) continue;
        Waiter* waiter = &all().places[i];
        if (id == EventId() || answers_of(waiter).id == id) change(waiter);
    }
}

}  // namespace eventbus::counters
