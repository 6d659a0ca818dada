#include "intake/log_limit.hpp"

#include "postgres/steady.hpp"

namespace eventbus::intake {

namespace {

constexpr int64 row_bytes = 64;
constexpr long patience_ms = 5000;
constexpr long ask_again_ms = 100;

int64 bytes_of(const log::NewEvent& event) {
    int64 bytes = row_bytes + static_cast<int64>(VARSIZE_ANY(event.topic)) +
                  static_cast<int64>(VARSIZE_ANY(DatumGetPointer(event.payload)));
    if (event.key != nullptr) bytes += VARSIZE_ANY(event.key);
    if (event.has_headers) bytes += VARSIZE_ANY(DatumGetPointer(event.headers));
    return bytes;
}

void ask_keeper(counters::LogSpace* room, int64 bytes) {
    std::int64_t known = room->wanted;
    while (known < bytes && !room->wanted.compare_exchange_weak(known, bytes)) {
    }
}

// The log has grown by so much that the keeper should look whether it has to continue to the next segment.
void tell_keeper(counters::Database* database) {
    database->log_space.look_at = PG_INT64_MAX;
    ask_keeper(&database->log_space, 1);
    counters::wake_keeper(database);
}

// The keeper may not have seen yet that a burst of events has filled the log, that what is kept for
// eventbus.retention has to go, or that routes have caught up: it looks first. Where it has found that nothing can be
// freed, nobody waits.
void wait_for_keeper(counters::Database* database, int64 bytes, int64 limit) {
    counters::LogSpace& room = database->log_space;
    SteadyTime until = plus_ms(steady_now(), patience_ms);
    static uint32 wait_event = 0;
    if (wait_event == 0) wait_event = compat::wait_event("EventbusLogFull");
    ConditionVariablePrepareToSleep(&room.looked);
    while (!room.none && !database->other_version && log::known_size(&database->log) + bytes > limit &&
           steady_now() < until) {
        ask_keeper(&room, bytes);
        if (!counters::wake_keeper(database)) break;
        ConditionVariableTimedSleep(&room.looked, ask_again_ms, wait_event);
    }
    ConditionVariableCancelSleep();
}

const char* pretty(int64 bytes) {
    return TextDatumGetCString(DirectFunctionCall1(pg_size_pretty, Int64GetDatum(bytes)));
}

}  // namespace

void wait_for_space(const log::NewEvent& event, counters::Database* database) {
    log::SharedPlace* place = event.place;
    int64 limit = log::size_limit();
    int64 bytes = bytes_of(event);
    int64 size = log::known_size(place);
    if (size + bytes <= limit) {
        if (database != nullptr && size > database->log_space.look_at.load(std::memory_order_relaxed))
            tell_keeper(database);
        return;
    }
    if (database != nullptr && bytes <= limit) wait_for_keeper(database, bytes, limit);
    if (settings::on_log_full == settings::on_log_full_skip || (database != nullptr && database->copy_waits)) return;
    size = log::measured_size(place);
    if (size + bytes <= limit) return;
    ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED), errmsg("the event log is full"),
                    errdetail("It takes %s of eventbus.max_log_size (%s) on disk; this event takes %s.", pretty(size),
                              pretty(limit), pretty(bytes)),
                    errhint("It shrinks by itself when the routes that lag have delivered, and the transactions that "
                            "have published have ended: eventbus.status and eventbus.health() show which they are. "
                            "Fix what holds them, drop_route what is not needed, raise eventbus.max_log_size, or set "
                            "eventbus.on_log_full to skip.")));
}

}  // namespace eventbus::intake
