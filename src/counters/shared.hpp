// What it is: the shared memory of pg_eventbus: who runs, who sleeps, what happened to each route.
// Who calls it: intake (to wake senders), worker (to run), the status functions (to show).
// Never: holds anything that must survive a restart; that is in the database.
#pragma once

#include <atomic>
#include <cstdint>

#include "counters/pace.hpp"
#include "counters/waiters.hpp"
#include "postgres/compat.hpp"
#include "source/log/log.hpp"

extern "C" {
#include "storage/condition_variable.h"
}

namespace eventbus::counters {

inline constexpr int max_databases = 512;
inline constexpr int max_workers = 512;
inline constexpr int max_routes = 2048;
inline constexpr const char* hint_of_copies =
    "Point them elsewhere with eventbus.alter_broker, or drop them; then SELECT eventbus.adopt() continues with what "
    "waits, "
    "eventbus.adopt('now') without it.";
inline constexpr std::int64_t limit_of_copies = 1024 * 1024 * 1024;  // bytes of log, where no setting says so

enum class WorkerKind : std::uint8_t { none, keeper, sender, decoder };

// What publishers and the keeper tell each other of a full log.
struct LogSpace {
    std::atomic<std::int64_t> wanted;   // most that a publisher has missed since the keeper last looked, in bytes
    std::atomic<std::int64_t> look_at;  // size of the log at which the keeper wants to be woken to look
    std::atomic<bool> none;             // the keeper has looked, and nothing can be freed for now
    std::atomic<bool> tight;   // the log is more than half full: senders write cursors soon, whatever they pass
    ConditionVariable looked;  // the keeper has
    // Routes are to leave out what they have not delivered of segments before this generation; 0: nothing.
    std::atomic<std::int64_t> skip_before;
    // The keeper's process id while it leaves events out for routes that nobody serves: senders that begin wait for
    // that.
    std::atomic<int> skipper;
};

// What the launcher knows of a database.
struct Database {
    Oid oid;                                   // InvalidOid: free
    std::atomic<std::uint64_t> commits;        // commits that published something; senders compare it before they sleep
    std::atomic<int> sleepers;                 // senders that sleep: a commit looks for them only if there are any
    std::atomic<int> wal_readers;              // decoders
    std::atomic<int> wal_sleepers;             // those of them that sleep
    std::atomic<std::uint64_t> wal_commits;    // commits that they were told of,
    std::atomic<std::uint64_t> wal_end;        // and up to where the WAL holds something that may be theirs
    std::atomic<std::uint64_t> cursor_saves;   // times that a sender has moved cursors
    std::atomic<bool> keeper_waits;            // the keeper wants to be woken by the next of them
    std::atomic<std::uint32_t> configuration;  // rises when brokers, routes or the extension change
    std::atomic<SteadyTime> changed_at;        // when it last did
    log::SharedPlace log;                      // where publishers append
    LogSpace log_space;
    std::atomic<bool> look;             // the launcher should start a keeper to look at it
    std::atomic<bool> has_extension;    // as the last keeper found it: it has,
    std::atomic<bool> no_extension;     // it has not; neither: it ended before it knew
    std::atomic<bool> copy_waits;       // it has brokers of a copy that nobody has adopted: its log is kept small
    std::atomic<bool> delivery_off;     // eventbus.delivery, as the last keeper has it
    std::atomic<bool> other_version;    // the same: not the library's, so that nobody delivers or frees anything
    std::atomic<int> suspended_by;      // pid of a backend that needs the database to itself, or 0
    std::atomic<int> missing_workers;   // keepers and senders that found no slot in max_worker_processes,
    std::atomic<int> missing_decoders;  // and decoders
    std::atomic<int> wanted_decoders;   // that such senders will want
};

// A running keeper, sender or decoder.
struct Worker {
    WorkerKind kind;
    Oid database;
    std::int32_t broker_id;
    int pid;  // 0: free
    int proc_number;
    bool reads_wal;
    std::atomic<bool> asked_to_leave;   // by SIGTERM; stays when the place is free
    std::atomic<bool> unusable;         // a sender whose broker cannot be used: it moves no cursor
    std::atomic<bool> sleeping;         // counted in Database::sleepers; who unsets it takes it off there
    std::atomic<bool> sleeping_on_wal;  // the same in Database::wal_sleepers
    // A decoder that sleeps wants to be woken when WAL has been written up to there, whoever writes it; 0: it does not.
    std::atomic<std::uint64_t> look_at;
};

// There may be unsettled events, and nobody can tell how old they are.
inline constexpr TimestampTz oldest_unknown = DT_NOBEGIN;

// What a sender says of a route. Guarded by the spinlock: readers copy it whole.
struct Route {
    slock_t mutex;
    Oid database;  // InvalidOid: free
    std::int32_t route_id;
    int claimed_by;               // pid; 0: who had it is gone, and it is another route's where no place is free
    int sender_pid;               // 0: nobody serves it now
    std::uint32_t configuration;  // of its database, which what follows is of
    char state[16];
    std::uint64_t delivered;
    std::uint64_t dead;
    std::uint64_t retries;
    std::uint32_t in_flight;
    TimestampTz oldest;             // when the oldest unsettled event was published; 0: none; or oldest_unknown
    TimestampTz last_delivered_at;  // 0: never
    TimestampTz last_error_at;
    TimestampTz past_error_at;    // the same of an error that the route has been well since; 0: none
    TimestampTz next_attempt_at;  // 0: nothing waits for a time of its own
    char last_error[512];
    Pace pace;
};

struct Shared {
    LWLock* lock;                        // guards the allocation of the arrays' places
    std::atomic<std::uint64_t> look_at;  // no decoder wants to be woken before the WAL has come so far
    SteadyTime started_at;
    int launcher_pid;
    int launcher_proc_number;
    Database databases[max_databases];
    Worker workers[max_workers];
    Route routes[max_routes];
    Waiters waiters;
};

// Called from _PG_init while the server preloads libraries.
void request_shared_memory();
// nullptr where the library was not preloaded.
Shared* shared();

// The place of a database; with `create`, one is made. nullptr: none, or the array is full.
Database* find_database(Oid oid, bool create);
void free_database(Database* database);
// The same, unless somebody wants it looked at by now, or works there still; returns whether.
bool free_if_unwanted(Database* database);
// Workers are to read the configuration again, and the launcher is to see to it that there are some. The place cannot
// be freed in between. Wakes nobody.
Database* configuration_changed(Oid oid);
// Workers that are missing are perhaps just being started: the server, or what they are for, is new.
bool may_be_starting(const Database* database);
Database* my_database();  // this backend's, cached; nullptr where nobody serves it

// A worker's own place; freed by a callback at exit. nullptr: the array is full.
Worker* attach_worker(WorkerKind kind, Oid database, std::int32_t broker_id);
// The running workers of the database, whatever they are.
using Pids = int[max_workers];
int pids_of_workers(Oid database, Pids& pids);
int pid_of_sender(Oid database, std::int32_t broker_id);
int pid_of_decoder(Oid database, std::int32_t broker_id);
bool is_unusable(Oid database, std::int32_t broker_id);  // its sender runs, and moves no cursor
int pid_of_keeper(Oid database);
// In a signal handler: this process has been asked to leave.
void note_asked_to_leave();
// Of a worker that is gone: whether it was asked to.
bool left_when_asked(WorkerKind kind, Oid database, std::int32_t broker_id);

// A route's place, of which what an earlier sender of it said is kept; nullptr: the array is full.
Route* claim_route(Oid database, std::int32_t route_id);
void free_route(Oid database, std::int32_t route_id);
bool copy_route(Oid database, std::int32_t route_id, Route* copy);
// Before its state is written again: an error since which it has been active for a minute is past.
void note_past_error(Route* route, TimestampTz now);

void wake_launcher();
void wake_workers_of(Oid database);
void wake_senders_of(Oid database);

// A sender says that it is about to sleep, a decoder that it is, and both that they are awake again.
void fall_asleep(Database* database, Worker* worker);
void fall_asleep_on_wal(Database* database, Worker* worker);
void wake_up(Database* database, Worker* worker);
// Counts a commit and wakes the senders that sleep.
void count_commit(Database* database);
// Tells decoders that there may be something for them before `end`.
void tell_wal_readers(Database* database, std::uint64_t end);
// A decoder wants to be woken when the WAL has come so far. Whoever writes tells how far it has come.
void wake_at(Worker* worker, std::uint64_t end);
void wal_has_grown(std::uint64_t end);
// A decoder begins or ends to read the WAL.
void read_wal(Database* database, Worker* worker, bool reads);
// False where no keeper runs.
bool wake_keeper(Database* database);
// Counts a save of cursors and wakes the keeper if it waits for one.
void count_cursor_save(Database* database);

}  // namespace eventbus::counters
