// What it is: rotation: going on to the next segment, and truncating what every route has passed.
// Who calls it: the keeper.
// Never: waits for a lock, or truncates a segment that holds an event some route still needs.
#pragma once

#include "log/log.hpp"

namespace eventbus::log {

struct RotationResult {
    bool advanced = false;  // the log went on to its next segment
    int truncated = 0;      // segments
    bool busy = false;      // something stood in the way that a later attempt may find gone
    bool empty = false;     // nothing is left in the log
};

// Each in a transaction of its own. `force_advance` is set once the current segment has been current for
// eventbus.rotation_period.
RotationResult rotate(bool force_advance, SharedPlace* place);

}  // namespace eventbus::log
