// Making and finding places in the shared memory.
// Never: keeps the lock while it waits for anything.
#include "counters/shared.hpp"

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <new>

extern "C" {
#include "storage/latch.h"
#include "storage/shmem.h"
#include "storage/spin.h"
}

namespace eventbus::counters {

namespace {

shmem_request_hook_type previous_request_hook = nullptr;
shmem_startup_hook_type previous_startup_hook = nullptr;
Shared* state = nullptr;
Worker* my_worker = nullptr;
volatile std::sig_atomic_t asked_to_leave = 0;

bool is_of(const Worker& worker, WorkerKind kind, Oid database, std::int32_t broker_id) {
    return worker.kind == kind && worker.database == database && worker.broker_id == broker_id;
}

void request() {
    if (previous_request_hook != nullptr) previous_request_hook();
    RequestAddinShmemSpace(sizeof(Shared));
    RequestNamedLWLockTranche("pg_eventbus", 1);
}

void startup() {
    if (previous_startup_hook != nullptr) previous_startup_hook();
    bool found;
    LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
    void* memory = ShmemInitStruct("pg_eventbus", sizeof(Shared), &found);
    state = static_cast<Shared*>(memory);
    if (!found) {
        new (memory) Shared();
        state->look_at = UINT64_MAX;
        state->started_at = steady_now();
        state->lock = &GetNamedLWLockTranche("pg_eventbus")->lock;
        for (Route& route : state->routes) SpinLockInit(&route.mutex);
        init_waiters(&state->waiters);
        for (Database& database : state->databases) ConditionVariableInit(&database.log_space.looked);
    }
    LWLockRelease(AddinShmemInitLock);
}

void detach_worker(int, Datum) {
    if (my_worker == nullptr) return;
    if (Database* database = find_database(my_worker->database, false)) wake_up(database, my_worker);
    LWLockAcquire(state->lock, LW_EXCLUSIVE);
    if (my_worker->kind == WorkerKind::sender)
        for (Route& route : state->routes) {
            SpinLockAcquire(&route.mutex);
            if (route.claimed_by == MyProcPid) route.claimed_by = route.sender_pid = 0;
            SpinLockRelease(&route.mutex);
        }
    if (my_worker->reads_wal)
        for (Database& database : state->databases)
            if (database.oid == my_worker->database) read_wal(&database, my_worker, false);
    my_worker->look_at = 0;
    my_worker->pid = 0;
    my_worker = nullptr;
    LWLockRelease(state->lock);
}

}  // namespace

void request_shared_memory() {
    previous_request_hook = shmem_request_hook;
    shmem_request_hook = request;
    previous_startup_hook = shmem_startup_hook;
    shmem_startup_hook = startup;
}

Shared* shared() {
    return state;
}

// With the lock held.
static Database* find_place(Oid oid, bool create) {
    Database* found = nullptr;
    Database* free = nullptr;
    for (Database& database : state->databases) {
        if (database.oid == oid) {
            found = &database;
            break;
        }
        if (free == nullptr && database.oid == InvalidOid) free = &database;
    }
    if (found == nullptr && create && free != nullptr) {
        free->commits = 0;
        free->sleepers = 0;
        free->wal_readers = 0;
        free->wal_sleepers = 0;
        free->wal_commits = 0;
        free->wal_end = 0;
        free->cursor_saves = 0;
        free->keeper_waits = false;
        free->configuration = 0;
        free->changed_at = steady_now();
        free->log.forget();
        free->log_space.wanted = 0;
        free->log_space.look_at = 0;
        free->log_space.tight = false;
        free->log_space.skip_before = 0;
        free->log_space.skipper = 0;
        free->log_space.none = false;
        free->look = true;
        free->has_extension = false;
        free->no_extension = false;
        free->copy_waits = false;
        free->delivery_off = false;
        free->other_version = false;
        free->suspended_by = 0;
        free->missing_workers = 0;
        free->missing_decoders = 0;
        free->wanted_decoders = 0;
        free->oid = oid;
        found = free;
    }
    return found;
}

Database* find_database(Oid oid, bool create) {
    if (state == nullptr) return nullptr;
    LWLockAcquire(state->lock, create ? LW_EXCLUSIVE : LW_SHARED);
    Database* found = find_place(oid, create);
    LWLockRelease(state->lock);
    return found;
}

Database* configuration_changed(Oid oid) {
    if (state == nullptr) return nullptr;
    LWLockAcquire(state->lock, LW_EXCLUSIVE);
    Database* database = find_place(oid, true);
    if (database != nullptr) {
        database->configuration.fetch_add(1);
        database->changed_at = steady_now();
        database->look = true;
    }
    LWLockRelease(state->lock);
    return database;
}

bool may_be_starting(const Database* database) {
    constexpr int patience_ms = 3000;
    const SteadyTime now = steady_now();
    return !ms_have_passed(state->started_at, now, patience_ms) ||
           (database != nullptr && !ms_have_passed(database->changed_at, now, patience_ms));
}

void free_database(Database* database) {
    LWLockAcquire(state->lock, LW_EXCLUSIVE);
    database->oid = InvalidOid;
    LWLockRelease(state->lock);
}

bool free_if_unwanted(Database* database) {
    LWLockAcquire(state->lock, LW_EXCLUSIVE);
    bool unwanted = !database->look &&
                    std::none_of(std::begin(state->workers), std::end(state->workers), [&](const Worker& worker) {
                        return worker.pid != 0 && worker.database == database->oid;
                    });
    if (unwanted) database->oid = InvalidOid;
    LWLockRelease(state->lock);
    return unwanted;
}

Database* my_database() {
    static Database* cached = nullptr;
    if (cached == nullptr || cached->oid != MyDatabaseId) cached = find_database(MyDatabaseId, false);
    return cached;
}

Worker* attach_worker(WorkerKind kind, Oid database, std::int32_t broker_id) {
    LWLockAcquire(state->lock, LW_EXCLUSIVE);
    bool there = false;
    for (Worker& worker : state->workers) {
        if (!is_of(worker, kind, database, broker_id)) continue;
        if (worker.pid == 0)
            worker.asked_to_leave = false;  // how an earlier one ended
        else
            there = true;
    }
    for (Worker& worker : state->workers) {
        if (there) break;
        if (worker.pid != 0) continue;
        worker.kind = kind;
        worker.database = database;
        worker.broker_id = broker_id;
        worker.proc_number = compat::my_proc_number();
        worker.reads_wal = false;
        worker.asked_to_leave = asked_to_leave != 0;
        worker.unusable = false;
        worker.sleeping = false;
        worker.sleeping_on_wal = false;
        worker.look_at = 0;
        worker.pid = MyProcPid;
        my_worker = &worker;
        break;
    }
    LWLockRelease(state->lock);
    if (my_worker != nullptr) before_shmem_exit(detach_worker, 0);
    return my_worker;
}

int pids_of_workers(Oid database, Pids& pids) {
    int count = 0;
    LWLockAcquire(state->lock, LW_SHARED);
    for (const Worker& worker : state->workers)
        if (worker.pid != 0 && worker.database == database) pids[count++] = worker.pid;
    LWLockRelease(state->lock);
    return count;
}

static int pid_of(WorkerKind kind, Oid database, std::int32_t broker_id) {
    int pid = 0;
    LWLockAcquire(state->lock, LW_SHARED);
    for (const Worker& worker : state->workers)
        if (worker.pid != 0 && is_of(worker, kind, database, broker_id)) pid = worker.pid;
    LWLockRelease(state->lock);
    return pid;
}

void note_asked_to_leave() {
    asked_to_leave = 1;
    if (my_worker != nullptr) my_worker->asked_to_leave = true;
}

bool left_when_asked(WorkerKind kind, Oid database, std::int32_t broker_id) {
    LWLockAcquire(state->lock, LW_SHARED);
    bool asked = std::any_of(std::begin(state->workers), std::end(state->workers), [&](const Worker& worker) {
        return worker.pid == 0 && is_of(worker, kind, database, broker_id) && worker.asked_to_leave;
    });
    LWLockRelease(state->lock);
    return asked;
}

int pid_of_sender(Oid database, std::int32_t broker_id) {
    return pid_of(WorkerKind::sender, database, broker_id);
}
int pid_of_decoder(Oid database, std::int32_t broker_id) {
    return pid_of(WorkerKind::decoder, database, broker_id);
}
int pid_of_keeper(Oid database) {
    return pid_of(WorkerKind::keeper, database, 0);
}

bool is_unusable(Oid database, std::int32_t broker_id) {
    LWLockAcquire(state->lock, LW_SHARED);
    bool parked = std::any_of(std::begin(state->workers), std::end(state->workers), [&](const Worker& worker) {
        return worker.pid != 0 && is_of(worker, WorkerKind::sender, database, broker_id) && worker.unusable;
    });
    LWLockRelease(state->lock);
    return parked;
}

Route* claim_route(Oid database, std::int32_t route_id) {
    Route* found = nullptr;
    Route* free = nullptr;
    Route* left = nullptr;
    LWLockAcquire(state->lock, LW_EXCLUSIVE);
    for (Route& route : state->routes) {
        if (route.database == database && route.route_id == route_id) {
            found = &route;
            break;
        }
        if (free == nullptr && route.database == InvalidOid) free = &route;
        if (left == nullptr && route.claimed_by == 0) left = &route;
    }
    if (free == nullptr) free = left;  // whose broker or route may have been dropped while nobody served it
    if (found == nullptr && free != nullptr) {
        SpinLockAcquire(&free->mutex);
        slock_t* mutex = &free->mutex;
        std::memset(reinterpret_cast<char*>(free) + offsetof(Route, database), 0,
                    sizeof(Route) - offsetof(Route, database));
        free->database = database;
        free->route_id = route_id;
        SpinLockRelease(mutex);
        found = free;
    }
    if (found != nullptr) {
        SpinLockAcquire(&found->mutex);
        found->claimed_by = MyProcPid;
        SpinLockRelease(&found->mutex);
    }
    LWLockRelease(state->lock);
    return found;
}

void free_route(Oid database, std::int32_t route_id) {
    LWLockAcquire(state->lock, LW_EXCLUSIVE);
    for (Route& route : state->routes) {
        if (route.database != database || (route_id != 0 && route.route_id != route_id)) continue;
        SpinLockAcquire(&route.mutex);
        route.database = InvalidOid;
        SpinLockRelease(&route.mutex);
    }
    LWLockRelease(state->lock);
}

void note_past_error(Route* route, TimestampTz now) {
    constexpr int64 well_after_us = 60 * USECS_PER_SEC;
    if (strcmp(route->state, "active") == 0 && now - route->last_error_at >= well_after_us)
        route->past_error_at = route->last_error_at;
}

bool copy_route(Oid database, std::int32_t route_id, Route* copy) {
    if (state == nullptr) return false;
    bool found = false;
    LWLockAcquire(state->lock, LW_SHARED);
    for (Route& route : state->routes) {
        if (route.database != database || route.route_id != route_id) continue;
        SpinLockAcquire(&route.mutex);
        std::memcpy(static_cast<void*>(copy), &route, sizeof route);
        SpinLockRelease(&route.mutex);
        found = true;
        break;
    }
    LWLockRelease(state->lock);
    return found;
}

void wake_launcher() {
    if (state != nullptr && state->launcher_pid != 0) SetLatch(compat::latch_of(state->launcher_proc_number));
}

// No lock here and below: a worker that comes or goes meanwhile looks for itself, and a stray SetLatch does no harm.
void wake_workers_of(Oid database) {
    if (state == nullptr) return;
    for (Worker& worker : state->workers)
        if (worker.pid != 0 && worker.database == database) SetLatch(compat::latch_of(worker.proc_number));
}

void wake_senders_of(Oid database) {
    for (Worker& worker : state->workers)
        if (worker.pid != 0 && worker.kind == WorkerKind::sender && worker.database == database)
            SetLatch(compat::latch_of(worker.proc_number));
}

void fall_asleep(Database* database, Worker* worker) {
    database->sleepers.fetch_add(1);
    worker->sleeping.store(true);
}

void fall_asleep_on_wal(Database* database, Worker* worker) {
    database->wal_sleepers.fetch_add(1);
    worker->sleeping_on_wal.store(true);
}

void wake_up(Database* database, Worker* worker) {
    if (worker->sleeping.exchange(false)) database->sleepers.fetch_sub(1);
    if (worker->sleeping_on_wal.exchange(false)) database->wal_sleepers.fetch_sub(1);
}

bool wake_keeper(Database* database) {
    bool found = false;
    for (Worker& worker : state->workers) {
        if (worker.pid == 0 || worker.kind != WorkerKind::keeper || worker.database != database->oid) continue;
        SetLatch(compat::latch_of(worker.proc_number));
        found = true;
    }
    return found;
}

void count_cursor_save(Database* database) {
    database->cursor_saves.fetch_add(1);
    if (database->keeper_waits.exchange(false)) wake_keeper(database);
}

void read_wal(Database* database, Worker* worker, bool reads) {
    if (worker->reads_wal == reads) return;
    worker->reads_wal = reads;
    database->wal_readers.fetch_add(reads ? 1 : -1);
}

void tell_wal_readers(Database* database, std::uint64_t end) {
    if (my_worker != nullptr) return;  // cursors are nobody's events, and wait for no disk
    std::uint64_t known = database->wal_end.load();
    while (known < end && !database->wal_end.compare_exchange_weak(known, end)) continue;
    database->wal_commits.fetch_add(1);
    if (database->wal_sleepers.load() == 0) return;
    for (Worker& worker : state->workers) {
        if (worker.pid == 0 || worker.database != database->oid ||
            !worker.sleeping_on_wal.load(std::memory_order_relaxed))
            continue;
        if (!worker.sleeping_on_wal.exchange(false)) continue;  // somebody else wakes it
        database->wal_sleepers.fetch_sub(1);
        SetLatch(compat::latch_of(worker.proc_number));
    }
}

static std::uint64_t least_look_at() {
    std::uint64_t least = UINT64_MAX;
    for (const Worker& worker : state->workers)
        if (const std::uint64_t wanted = worker.look_at; wanted != 0) least = std::min(least, wanted);
    return least;
}

// Looks again behind its own store: somebody may have set a lower one between the first look and that.
static void settle_look_at() {
    std::uint64_t least;
    do {
        least = least_look_at();
        state->look_at = least;
    } while (least_look_at() < least);
}

void wake_at(Worker* worker, std::uint64_t end) {
    worker->look_at = end;
    settle_look_at();
}

void wal_has_grown(std::uint64_t end) {
    if (state == nullptr || end < state->look_at.load(std::memory_order_relaxed)) return;
    for (Worker& worker : state->workers) {
        std::uint64_t wanted = worker.look_at;
        if (wanted == 0 || end < wanted || !worker.look_at.compare_exchange_strong(wanted, 0)) continue;
        SetLatch(compat::latch_of(worker.proc_number));
    }
    settle_look_at();
}

void count_commit(Database* database) {
    // A full barrier: a sender that is about to sleep sees the new count, or we see that it sleeps.
    database->commits.fetch_add(1);
    if (database->sleepers.load() == 0) return;
    for (Worker& worker : state->workers) {
        if (worker.pid == 0 || worker.database != database->oid || !worker.sleeping.load(std::memory_order_relaxed))
            continue;
        if (!worker.sleeping.exchange(false)) continue;  // somebody else wakes it
        database->sleepers.fetch_sub(1);
        SetLatch(compat::latch_of(worker.proc_number));
    }
}

}  // namespace eventbus::counters
