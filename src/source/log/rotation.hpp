// What it is: rotation: continuing to the next segment, and truncating what every route has passed.
// Who calls it: the keeper.
// Never: waits for a lock, or truncates a segment that holds an event some route still needs.
#pragma once

#include "source/log/unrouted.hpp"

namespace eventbus::log {

struct RotationResult {
    bool advanced = false;  // the log continued to its next segment
    bool empty = false;     // nothing is left in the log
    int64 bytes = 0;        // what is left
    bool full = false;      // publishers want more than the limit leaves them
    // If full: what stands before this generation holds the log, and no open transaction does; 0: one does.
    int64 held_before = 0;
};

// Several transactions. `force_advance` is set once the current segment has been current for
// eventbus.rotation_period; publishers want `wanted` bytes more than there is room for (0: nobody does). `held_before`
// is what was found so earlier, or 0; `limit`: what the log may take, in bytes, 0: as much as it likes.
// What no route took, as `read_takers` says, is counted in eventbus.unrouted when its segment is truncated.
RotationResult rotate(bool force_advance, int64 wanted, int64 held_before, int64 limit, SharedPlace* place,
                      ReadTakers read_takers);

}  // namespace eventbus::log
