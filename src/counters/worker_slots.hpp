// What it is: what to set max_worker_processes to, said with one number by the log and health().
// Who calls it: the launcher, the keeper and senders when they warn, health().
// Never: counts slots; whoever finds none writes that down in Database.
#pragma once

#include "counters/shared.hpp"

extern "C" {
#include "miscadmin.h"
}

namespace eventbus::counters {

// Those that are missing in all databases, with the decoders of senders that are, and one with which the launcher looks
// at a database.
inline int wanted_worker_processes() {
    int missing = 0;
    for (const Database& database : shared()->databases)
        if (database.oid != InvalidOid)
            missing += database.missing_workers + database.missing_decoders + database.wanted_decoders;
    return max_worker_processes + missing + 1;
}

}  // namespace eventbus::counters
