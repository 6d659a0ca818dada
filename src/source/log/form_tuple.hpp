// What it is: the tuple of an event, as it is stored.
// Who calls it: append and the events that wait.
// Never: allocates: it is made where its caller has room.
#pragma once

#include "source/log/log.hpp"

namespace eventbus::log {

// How large the tuple of an event is.
Size tuple_size(const NewEvent& event);
// Makes it at `at`, by the current command of the current transaction; `size` is tuple_size's.
void form_tuple(const NewEvent& event, int64 id, TimestampTz published_at, HeapTupleHeader at, Size size);
void set_id(HeapTupleHeader tuple, int64 id);

// Tuples too large for this are stored apart.
bool is_large(Size tuple_size);

}  // namespace eventbus::log
