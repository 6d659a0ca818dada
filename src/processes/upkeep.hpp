// What it is: the log's upkeep over time: when to rotate, and what to tell publishers that find no room.
// Who calls it: the keeper, in its loop.
// Never: sleeps, or comes more often than something has happened while there is room.
#pragma once

#include "counters/shared.hpp"
#include "postgres/steady.hpp"
#include "source/log/rotation.hpp"

extern "C" {
#include "nodes/pg_list.h"
}

namespace eventbus::processes {

// When to rotate: a second after something was published or the cursors moved, at the latest every second while that
// continues; then less and less often while nothing moves, as when a route is paused or its broker is down. A log that
// has little room left is looked at ten times as often, and never less than once a second.
class Upkeep {
 public:
    using IsServed = bool (*)(int32 broker_id);  // by a sender that runs, or is about to
    Upkeep(counters::Database* database, IsServed is_served) : database_(database), is_served_(is_served) {}
    // Returns when to come again; 0: when somebody wakes us.
    SteadyTime run_if_due();
    void hurry() { due_ = 1; }
    // Of a copy that nobody has adopted: its log is bounded, whatever the settings say.
    void keep_small(bool small);

 private:
    bool is_due(SteadyTime now);
    void skip(const log::RotationResult& result);
    void ask_senders(std::int64_t skip_before);
    void tell_log(std::int64_t bytes, std::int64_t limit);
    void tell_publishers(SteadyTime now);

    std::int64_t limit() const;
    bool may_skip() const;

    counters::Database* database_;
    bool small_ = false;
    IsServed is_served_;
    List* skipped_ = NIL;  // what routes had left out before the log became full
    std::uint64_t seen_ = 0;
    SteadyTime due_ = 1;  // once at the start: the log may hold what an earlier life left
    SteadyTime current_since_ = 0;
    SteadyTime full_since_ = 0;
    SteadyTime asked_at_ = 0;  // when what senders are asked for last changed
    bool near_full_ = false;
    int pause_ms_ = 0;
};

}  // namespace eventbus::processes
