// What it is: partitions of captured tables: who may make them, and what that right is good for.
// Who calls it: the event trigger function eventbus.follow_captured.
// Never: lets a role publish that could not before.
#pragma once

#include "capture/capture.hpp"

namespace eventbus::capture {

// Before a command: PostgreSQL gives a partition its parent's triggers in the name of whoever makes or attaches it, and
// asks that role for EXECUTE on their function. Where it lacks it, and the parent is captured and its own, the parent's
// owner is given it.
void let_make_partitions(const Node* command, const CaptureFunctions& functions);

// After a command: a trigger on that function is capture's, or of somebody who may make triggers by hand. Errors
// (42501) otherwise.
void refuse_made_by_hand(const CaptureFunctions& functions);

}  // namespace eventbus::capture
