// What it is: what a sender's routes from the WAL have in common: the source, and why there is none.
// Who calls it: wal_feed.cpp, wal_source.cpp and wal_lent.cpp.
// Never: is seen by others.
#pragma once

#include "core/backoff.hpp"
#include "worker/sender.hpp"

namespace eventbus::worker {

struct WalState {
    wal::Source* source;
    bool changed;               // routes have come or gone since the source was opened
    bool awaited;               // a full route is given a moment to move
    bool more;                  // the last step did not come to the end of what there is
    bool unseen;                // what was found cannot be seen by all readers yet, or standbys have not got it
    bool at_end;                // all that has been committed is with the routes,
    TimestampTz handed_until;   // or, where it is not, what was committed before
    SteadyTime standbys_since;  // since when standbys are waited for; 0: they are not
    List* left;  // of WalFeed*: of routes that are gone, while the broker may still be sent what they were lent
    SteadyTime confirmed_at;
    char trouble[512];  // why it stands still; empty: it does not
    char hint[256];
    XLogRecPtr failed_at;  // where reading failed; the trouble is over behind that. 0: it was not in reading
    SteadyTime retry_at;
    wal::Failures failures;                                              // of all sources that there were
    Backoff backoff{Backoff::Duration(1000), Backoff::Duration(30000)};  // ms
};

extern WalState wal_now;

inline bool is_lost(const SenderRoute* route) {
    return route->stored.cursor.wal.lost;
}

// wal_source.cpp
bool is_reading();
wal::Position handed_by_now();
void close_wal_source();
void open_wal_source_if_due();
// The source is there, complete, for the first time since it was opened.
void wal_source_began();
// It has read on.
void wal_source_moved();
// Whether the standbys that are to have it first have all WAL up to there; says so where that takes long.
bool standbys_have(XLogRecPtr lsn);
// Runs what may fail; afterwards nothing of it is left. False where it failed.
bool attempt(void (*work)(void*), void* argument);

}  // namespace eventbus::worker
