#include "processes/sleep.hpp"

extern "C" {
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/backend_status.h"
}

namespace eventbus::processes {

// Names are literals: the same one is at the same place.
static uint32 id_of(const char* wait_event) {
    constexpr int most = 16;
    static struct {
        const char* name;
        uint32 id;
    } known[most] = {};
    for (auto& one : known) {
        if (one.name == nullptr) one = {wait_event, compat::wait_event(wait_event)};
        if (one.name == wait_event) return one.id;
    }
    return PG_WAIT_EXTENSION;
}

void sleep_on_latch(long milliseconds, const char* wait_event) {
    sleep_on({}, milliseconds, wait_event);
}

void linger(long microseconds) {
    pg_usleep(microseconds);
}

bool Rush::is_on(std::uint64_t commits) {
    constexpr std::uint64_t many_a_second = 8000;
    constexpr std::int64_t measured_over_us = 5000;
    const SteadyTime now = steady_now();
    if (now - since_ < measured_over_us) return on_;
    on_ = (commits - commits_) * USECS_PER_SEC > many_a_second * static_cast<std::uint64_t>(now - since_);
    since_ = now;
    commits_ = commits;
    return on_;
}

Readiness sleep_on(const Descriptor& descriptor, long milliseconds, const char* wait_event) {
    // The set is kept while the descriptor stays the same: making one costs several system calls.
    static WaitEventSet* set = nullptr;
    static int set_fd = -1;
    static std::uint64_t set_number = 0;
    static int fd_position = 0;
    static uint32 fd_events = 0;

    const uint32 events = (descriptor.read ? WL_SOCKET_READABLE : 0) | (descriptor.write ? WL_SOCKET_WRITEABLE : 0);
    const int fd = events == 0 ? -1 : descriptor.fd;
    // Of a descriptor that is closed the kernel forgets that it was waited for, whatever has its fd next.
    if (set == nullptr || fd != set_fd || (fd >= 0 && descriptor.number != set_number)) {
        if (set != nullptr) FreeWaitEventSet(set);
        set = compat::create_wait_event_set(3);
        AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, nullptr);
        AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, nullptr, nullptr);
        if (fd >= 0) fd_position = AddWaitEventToSet(set, events, fd, nullptr, nullptr);
        set_fd = fd;
        set_number = descriptor.number;
        fd_events = events;
    } else if (fd >= 0 && events != fd_events) {
        ModifyWaitEvent(set, fd_position, events, nullptr);
        fd_events = events;
    }

    // What was waited for since may have used up the latch of a signal.
    if (ProcDiePending || ShutdownRequestPending) milliseconds = 0;
    Readiness ready;
    WaitEvent occurred[3];
    int count = WaitEventSetWait(set, milliseconds, occurred, 3, id_of(wait_event));
    for (int i = 0; i < count; ++i) {
        if ((occurred[i].events & WL_LATCH_SET) != 0) ready.latch = true;
        if ((occurred[i].events & WL_SOCKET_READABLE) != 0) ready.read = true;
        if ((occurred[i].events & WL_SOCKET_WRITEABLE) != 0) ready.write = true;
    }
    if (ready.latch) ResetLatch(MyLatch);
    return ready;
}

}  // namespace eventbus::processes
