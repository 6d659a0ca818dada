// What it is: whether the log may take one more event: eventbus.max_log_size.
// Who calls it: publish, before it appends.
// Never: looks at a file where the size is known, or waits for anybody but the keeper.
#pragma once

#include "counters/shared.hpp"
#include "source/log/size.hpp"

namespace eventbus::intake {

void wait_for_space(const log::NewEvent& event, counters::Database* database);

// ERROR where the log is full, and events are not to be left out instead.
inline void check_space(const log::NewEvent& event, counters::Database* database) {
    if (settings::max_log_size > 0) wait_for_space(event, database);
}

}  // namespace eventbus::intake
