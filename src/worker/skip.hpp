// What it is: leaving events out for routes that nobody serves.
// Who calls it: the keeper's upkeep.
// Never: touches the cursor of a route whose sender runs; the sender does it itself (skip_ahead in sender.hpp).
#pragma once

#include "status/shared.hpp"

namespace eventbus::worker {

// Leaves out what routes of unserved brokers have not delivered of segments before the generation.
void skip_unserved(int64 before, bool (*is_served)(int32 broker_id), status::Room* room);

}  // namespace eventbus::worker
