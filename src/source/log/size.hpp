// What it is: how much the log takes on disk, and how much it may.
// Who calls it: append and rotation (to keep count), publish (to know whether there is room), health (to show it).
// Never: waits for a lock.
#pragma once

#include "settings/settings.hpp"
#include "source/log/log.hpp"

namespace eventbus::log {

// What the log may take, in bytes; 0: as much as it likes.
inline int64 size_limit() {
    return settings::max_log_size > 0 ? static_cast<int64>(settings::max_log_size) * 1024 * 1024 : 0;
}

// What a segment takes; of it, for large values and their index. The caller has a lock on it.
int64 bytes_of(Relation segment);
int64 toast_bytes_of(Relation segment);
// All segments; negative where one of them is being truncated just now.
int64 measure();

// What the log takes, from what is kept count of; looks only where nothing is known. Without a place (nobody serves
// the database) this process counts what it adds itself, and looks again after a little.
int64 known_size(SharedPlace* place);
// Looks now.
int64 measured_size(SharedPlace* place);
// How much the file of a segment's large values has grown since somebody last looked: it grows in leaps when several
// write to it. `expected` where nobody has.
int64 toast_growth(Relation segment, std::atomic<int64>* known, int64 expected);
// A file has grown, or is about to.
void count_growth(SharedPlace* place, int64 bytes);

}  // namespace eventbus::log
