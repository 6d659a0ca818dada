#include "health/log_health.hpp"

#include "counters/shared.hpp"
#include "postgres/query.hpp"
#include "source/log/size.hpp"

namespace eventbus::health {

namespace {

constexpr int64 warning_percent = 50;
constexpr int64 error_percent = 80;

const char* pretty(int64 bytes) {
    return TextDatumGetCString(DirectFunctionCall1(pg_size_pretty, Int64GetDatum(bytes)));
}

// The two things that keep a log from shrinking: a route that has not passed it, a transaction that is still open.
const char* what_holds_it() {
    StringInfoData text;
    initStringInfo(&text);
    run_query(
        "SELECT r.name, extract(epoch FROM s.lag)::bigint FROM eventbus.delivery_status() s "
        "JOIN eventbus.route_config r ON r.id = s.route_id WHERE s.lag > interval '0' ORDER BY 2 DESC LIMIT 1");
    if (SPI_processed > 0)
        appendStringInfo(&text, "; route %s lags furthest, by " INT64_FORMAT " s", text_at(0, 1), int8_at(0, 2));
    run_query(
        "SELECT l.pid, greatest(0, extract(epoch FROM clock_timestamp() - a.xact_start)::bigint) FROM pg_locks l "
        "LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
        "WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND l.mode = 'RowExclusiveLock' AND l.granted AND l.relation IN (SELECT c.oid FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'eventbus' AND c.relname ~ '^log_[0-9]+$') "
        "ORDER BY a.xact_start NULLS FIRST LIMIT 1");
    if (SPI_processed > 0 && is_null_at(0, 1))
        appendStringInfoString(&text, "; a prepared transaction that has published keeps what came after it");
    else if (SPI_processed > 0)
        appendStringInfo(&text, "; process %d has published in a transaction that is open for " INT64_FORMAT " s",
                         int4_at(0, 1), int8_at(0, 2));
    return text.data;
}

// What somebody has done to the log's tables that they were not made for; nullptr: nothing.
const char* what_was_changed(const char** hint) {
    run_query(
        "SELECT c.relname::text, c.relpersistence <> 'p' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'eventbus' AND c.relname ~ '^log_[0-9]+$' AND (c.relpersistence <> 'p' "
        "OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid)) ORDER BY 2 DESC, 1 LIMIT 1");
    if (SPI_processed == 0) return nullptr;
    const char* table = text_at(0, 1);
    if (bool_at(0, 2)) {
        *hint = psprintf("Run ALTER TABLE eventbus.%s SET LOGGED.", table);
        return psprintf("eventbus.%s is unlogged: a crash loses its events, and it is never truncated", table);
    }
    *hint = "Drop the index: events are not entered in it, so that queries which use it miss them.";
    return psprintf("eventbus.%s has an index", table);
}

}  // namespace

Finding look_at_log() {
    const char* hint;
    if (const char* changed = what_was_changed(&hint)) return {"error", changed, hint};
    counters::Database* database = counters::my_database();
    int64 size = std::max<int64>(0, log::measured_size(database != nullptr ? &database->log : nullptr));
    int64 limit = log::size_limit();
    if (limit == 0) return {"ok", psprintf("%s on disk; no limit", pretty(size)), nullptr};
    int64 percent = size / (limit / 100);
    const char* detail = psprintf("%s of %s (" INT64_FORMAT " %%) on disk", pretty(size), pretty(limit), percent);
    if (percent < warning_percent) return {"ok", detail, nullptr};
    bool skip = settings::on_log_full == settings::on_log_full_skip;
    return {percent < error_percent ? "warning" : "error", psprintf("%s%s", detail, what_holds_it()),
            skip ? "When it is full, the route that lags furthest leaves its oldest events out. Fix what holds the "
                   "route, end the transaction, or raise eventbus.max_log_size."
                 : "When it is full, publishing fails. Fix what holds the route or drop_route it, end the transaction, "
                   "or raise eventbus.max_log_size."};
}

}  // namespace eventbus::health
