#include "processes/upkeep.hpp"

#include <algorithm>

#include "postgres/query.hpp"
#include "processes/skip_unserved.hpp"
#include "processes/topic_takers.hpp"
#include "source/log/size.hpp"

namespace eventbus::processes {

namespace {

struct Pace {
    int shortest_ms;
    int longest_ms;
};
constexpr Pace with_room{1000, 60000};
constexpr Pace near_full{100, 1000};

struct Skipped {
    int32 id;
    char* name;
    std::int64_t events;
    bool told;
};

// What each route has left out so far.
List* count_skipped() {
    List* routes = NIL;
    if (!begin_transaction_on_extension("looking for routes that left events out")) return routes;
    SPI_connect();
    run_query(
        "SELECT r.id, r.name, coalesce(sum(c.skipped), 0)::bigint FROM eventbus.route_config r "
        "LEFT JOIN eventbus.cursor c ON c.route_id = r.id GROUP BY r.id",
        {}, true);
    for (uint64 i = 0; i < SPI_processed; ++i) {
        MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
        auto* route = static_cast<Skipped*>(palloc(sizeof(Skipped)));
        *route = {int4_at(i, 1), text_at(i, 2), int8_at(i, 3), false};
        routes = lappend(routes, route);
        MemoryContextSwitchTo(before);
    }
    SPI_finish();
    commit_transaction();
    return routes;
}

Skipped* find(List* routes, int32 id) {
    ListCell* cell;
    foreach (cell, routes) {
        auto* route = static_cast<Skipped*>(lfirst(cell));
        if (route->id == id) return route;
    }
    return nullptr;
}

void forget(List* routes) {
    ListCell* cell;
    foreach (cell, routes) pfree(static_cast<Skipped*>(lfirst(cell))->name);
    list_free_deep(routes);
}

}  // namespace

void Upkeep::keep_small(bool small) {
    small_ = small;
    database_->copy_waits = small;
}

std::int64_t Upkeep::limit() const {
    const std::int64_t limit = log::size_limit();
    return small_ && limit == 0 ? counters::limit_of_copies : limit;
}

bool Upkeep::may_skip() const {
    return small_ || settings::on_log_full == settings::on_log_full_skip;
}

bool Upkeep::is_due(SteadyTime now) {
    const int shortest_ms = (near_full_ ? near_full : with_room).shortest_ms;
    std::uint64_t events = database_->commits + database_->cursor_saves;
    if (events != seen_) {
        seen_ = events;
        pause_ms_ = shortest_ms;
        SteadyTime soon = plus_ms(now, shortest_ms);
        due_ = due_ == 0 || due_ > soon ? soon : due_;
    }
    return due_ != 0 && now >= due_;
}

void Upkeep::ask_senders(std::int64_t skip_before) {
    if (database_->log_space.skip_before == skip_before) return;
    database_->log_space.skip_before = skip_before;
    asked_at_ = steady_now();
}

// Asks for the oldest segment until there is some room again.
void Upkeep::skip(const log::RotationResult& result) {
    if (full_since_ == 0 || !may_skip()) {
        ask_senders(0);
        return;
    }
    pause_ms_ = near_full.shortest_ms;
    if (skipped_ == NIL) skipped_ = count_skipped();
    if (!result.full) return;
    ask_senders(result.held_before);
    if (result.held_before == 0) return;
    counters::wake_senders_of(database_->oid);
    skip_unserved(result.held_before, is_served_, &database_->log_space);
}

// Each route that leaves events out is told of once, until the log is half empty.
void Upkeep::tell_log(std::int64_t bytes, std::int64_t limit) {
    if (skipped_ == NIL || (limit > 0 && bytes > limit)) return;
    List* now = count_skipped();
    bool over = bytes < limit / 2 || limit == 0;
    ListCell* cell;
    foreach (cell, now) {
        auto* route = static_cast<Skipped*>(lfirst(cell));
        Skipped* before = find(skipped_, route->id);
        std::int64_t events = route->events - (before != nullptr ? before->events : 0);
        if (events > 0 && (before == nullptr || !before->told)) {
            ereport(WARNING,
                    (errmsg("pg_eventbus: route \"%s\" skips ahead: the event log is full (%s " INT64_FORMAT
                            " MB), " INT64_FORMAT " events are left out",
                            route->name, settings::max_log_size > 0 ? "eventbus.max_log_size is" : "of a copy it takes",
                            limit / 1024 / 1024, events),
                     errdetail("What else it leaves out until the log is half empty is counted in eventbus.status."),
                     errhint("Fix what holds the route, or raise eventbus.max_log_size.")));
            if (before != nullptr) before->told = true;
        } else if (events > 0 && over) {
            ereport(LOG,
                    (errmsg("pg_eventbus: route \"%s\" skips no longer: the event log has room again; " INT64_FORMAT
                            " events were left out",
                            route->name, events)));
        }
    }
    forget(now);
    if (!over) return;
    forget(skipped_);
    skipped_ = NIL;
}

// Cursors are written ten times a second: what is delivered already is released only after that. Senders that have to
// leave something out wait for routes that are about to pass, and look through it first. Meanwhile publishers wait.
void Upkeep::tell_publishers(SteadyTime now) {
    constexpr int settle_ms = 500;
    constexpr int skip_ms = 5000;
    counters::LogSpace& space = database_->log_space;
    const int patience_ms = space.skip_before != 0 ? skip_ms : settle_ms;
    space.none = full_since_ != 0 && now - std::max(full_since_, asked_at_) >= INT64CONST(1000) * patience_ms;
    ConditionVariableBroadcast(&space.looked);
}

SteadyTime Upkeep::run_if_due() {
    SteadyTime now = steady_now();
    std::int64_t wanted = database_->log_space.wanted.exchange(0);
    if (!is_due(now) && wanted == 0) return due_;

    int period_ms = settings::rotation_period * 1000;
    bool force = current_since_ != 0 && ms_have_passed(current_since_, now, period_ms);
    log::RotationResult result =
        log::rotate(force, wanted, database_->log_space.skip_before, limit(), &database_->log, read_takers);
    const std::int64_t limit = this->limit();
    if (result.full && full_since_ == 0)
        full_since_ = now;
    else if (limit == 0 || (!result.full && result.bytes < limit - limit / 20))
        full_since_ = 0;
    near_full_ = limit > 0 && result.bytes > limit / 2;
    if (!database_->log_space.tight.exchange(near_full_) && near_full_) counters::wake_senders_of(database_->oid);
    database_->log_space.look_at = result.bytes + limit / 8;
    skip(result);
    tell_publishers(now);
    tell_log(result.bytes, limit);
    if (result.advanced || result.empty) current_since_ = 0;
    database_->keeper_waits = true;  // senders wake us when cursors have moved
    if (result.empty) return due_ = 0;
    if (current_since_ == 0) current_since_ = now;
    const Pace& pace = near_full_ ? near_full : with_room;
    pause_ms_ = std::clamp(pause_ms_, pace.shortest_ms, pace.longest_ms);
    due_ = plus_ms(now, pause_ms_);
    pause_ms_ = std::min(pause_ms_ * 2, pace.longest_ms);
    SteadyTime over = plus_ms(current_since_, period_ms + 1);
    if (over > now && over < due_) due_ = over;
    return due_;
}

}  // namespace eventbus::processes
