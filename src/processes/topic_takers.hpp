// What it is: see unrouted.cpp.
// Who calls it: see unrouted.cpp.
// Never: see unrouted.cpp.
#pragma once

#include "source/log/unrouted.hpp"

namespace eventbus::processes {

log::Takers read_takers(const char* routes);

}  // namespace eventbus::processes
