// What it is: see unrouted.cpp.
// Who calls it: see unrouted.cpp.
// Never: see unrouted.cpp.
#pragma once

#include "log/unrouted.hpp"

namespace eventbus::worker {

log::Takers read_takers(const char* routes);

}  // namespace eventbus::worker
