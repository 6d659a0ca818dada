// What it is: what launcher, keeper, sender and decoder have in common: coming up, being told to stop, having children.
// Who calls it: the worker room.
// Never: sleeps; sleep.hpp does.
#pragma once

#include "counters/shared.hpp"

extern "C" {
#include "postmaster/bgworker.h"
}

namespace eventbus::processes {

// Signal handlers, before anything else.
enum class OnSigterm : unsigned char {
    leave_waits,   // whatever PostgreSQL is waiting for ends in a FATAL error
    finish_round,  // the loop's round goes to its end, unless it waits for a lock; then stop_requested() is heeded
};
void set_up_signals(OnSigterm on_sigterm);

// Connects to a database (InvalidOid: shared catalogs only) with settings that no user default can spoil.
void connect_to(Oid database);

// Names of types, and values that are names, are written as in a session of the database while its WAL is decoded; our
// own statements want ours, which connect_to() sets.
void use_search_path_of_sessions();

// Ends the process: the arrays in shared memory are full.
[[noreturn]] void refuse_for_lack_of_room();

// SIGTERM has come: save what there is to save, then proc_exit().
bool stop_requested();
// Reloads postgresql.conf if SIGHUP has come; returns whether it had.
bool reload_if_requested();

// Runs what may fail. nullptr: it went well. Otherwise whatever transaction was open is undone, and this is why; the
// process continues. The caller frees it.
ErrorData* survive(void (*work)(void*), void* argument);
// Within it, and to its end: who waits longer for a lock fails, by ERRCODE_LOCK_NOT_AVAILABLE.
void wait_for_locks(int milliseconds);

// Registers the static launcher; from _PG_init.
void register_launcher();

// Starts a child; nullptr when max_worker_processes leaves no room.
BackgroundWorkerHandle* start_keeper(Oid database);
BackgroundWorkerHandle* start_sender(Oid database, const char* database_name, int32 broker_id, const char* broker_name);
struct DecoderArguments {
    int32 broker_id;
    uint32 channel;  // a dsm_handle
};
BackgroundWorkerHandle* start_decoder(Oid database, const char* database_name, const DecoderArguments& arguments,
                                      const char* broker_name);
enum class ChildState : unsigned char { starting, running, gone };
ChildState state_of(BackgroundWorkerHandle* handle);

}  // namespace eventbus::processes
