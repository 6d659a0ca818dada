// What it is: the functions behind eventbus.status and eventbus.health().
// Who calls it: operators and monitoring, in SQL.
// Never: shows a password; wakes or changes anything.
#include <algorithm>

#include "catalog/catalog.hpp"
#include "counters/shared.hpp"
#include "counters/worker_slots.hpp"
#include "health/backlog.hpp"
#include "health/log_health.hpp"
#include "health/table_locks.hpp"
#include "health/unrouted_health.hpp"
#include "health/wal_health.hpp"
#include "postgres/attempt.hpp"
#include "postgres/home.hpp"
#include "postgres/query.hpp"
#include "postgres/version.hpp"
#include "settings/settings.hpp"
#include "source/wal/wal_cursors.hpp"

extern "C" {
#include "access/xlog.h"
#include "funcapi.h"
}

namespace eventbus::health {

namespace {

Datum interval_of(int64 microseconds) {
    auto* interval = static_cast<Interval*>(palloc0(sizeof(Interval)));
    interval->time = std::max<int64>(0, microseconds);
    return IntervalPGetDatum(interval);
}

enum StatusColumn {
    status_route_id,
    status_state,
    status_delivered,
    status_dead,
    status_retries,
    status_skipped,
    status_in_flight,
    status_lag,
    status_last_delivered_at,
    status_last_error,
    status_last_error_at,
    status_sender_pid,
    status_throughput,
    status_latency_p50,
    status_latency_p99,
    status_dead_letters,
    status_events_waiting,
    status_bytes_waiting,
    status_waiting_estimated,
    status_paused_since,
    status_next_attempt_at,
    status_last_error_before,
    status_last_error_before_at,
    status_column_count
};

struct RouteLine {
    int32 id;
    bool paused;
    char* topics;
    bool from_wal;
    TimestampTz paused_at;
    bool can_read_log;   // nobody has locked a segment
    int64 dead_letters;  // negative: nobody can tell for now
    int64 put_back;      // by redeliver, and not settled yet: events,
    int64 put_back_bytes;
    TimestampTz put_back_oldest;  // when the oldest of them was published; 0: there is none
};

// What waits for a route from the WAL: nobody knows how many events there are in what is not settled.
int64 wal_behind(const wal::Place& place) {
    if (RecoveryInProgress() || place.slot[0] == '\0' || place.lost) return -1;
    return std::max<int64>(0, static_cast<int64>(GetXLogInsertRecPtr() - place.at.lsn));
}

void put_status(ReturnSetInfo* result, const RouteLine& line) {
    Datum values[status_column_count] = {};
    bool nulls[status_column_count] = {};
    cursors::Row row;
    log::Cursor cursor;
    wal::Place place = {};
    if (line.from_wal)
        (void)wal::load_place(line.id, 0, CurrentMemoryContext, &row, &place);
    else
        log::load_cursor(line.id, 0, CurrentMemoryContext, &row, &cursor);
    cursors::Counters counters = row.counters;
    const char* state = line.paused ? "paused" : "stopped";
    TimestampTz oldest = 0;
    TimestampTz past_error_at = 0;
    TimestampTz next_attempt_at = 0;
    int32 in_flight = 0;
    Backlog backlog;
    bool counted = !line.from_wal && line.can_read_log;

    TimestampTz now = GetCurrentTimestamp();
    counters::Route route;
    bool known = counters::copy_route(MyDatabaseId, line.id, &route);
    if (known) {
        counters::note_past_error(&route, now);
        past_error_at = route.past_error_at;
    }
    bool served = known && route.sender_pid != 0;
    counters::ShownPace pace = known ? show_pace(route.pace, steady_now()) : counters::ShownPace{0, -1, -1};
    if (served) {
        counters.delivered = static_cast<int64>(route.delivered);
        counters.dead = static_cast<int64>(route.dead);
        counters.retries = static_cast<int64>(route.retries);
        counters.last_delivered_at = route.last_delivered_at;
        counters.last_error_at = route.last_error_at;
        counters.last_error = route.last_error[0] != '\0' ? pstrdup(route.last_error) : nullptr;
        state = pstrdup(route.state);
        in_flight = static_cast<int32>(route.in_flight);
        oldest = route.oldest;
        next_attempt_at = route.next_attempt_at;
        // Its sender says what is wrong with a row that cannot be used.
        if (counted) counted = attempt([&] { backlog = look_behind(line.id, cursor, line.topics); }) == nullptr;
    } else if (place.lost) {
        state = "lost";
        oldest = counters::oldest_unknown;
    } else if (line.from_wal) {  // nobody but its sender decodes the WAL; what it left unsettled still is
        oldest = known && route.oldest != 0 ? route.oldest : counters::oldest_unknown;
    } else if (!counted) {
        oldest = counters::oldest_unknown;
    } else {  // a route of a restored dump has no cursor, and begins with the log
        backlog = look_behind(line.id, cursor, line.topics);
        oldest = backlog.oldest;
    }

    if (line.put_back > 0) {
        backlog.events += line.put_back;
        backlog.bytes += line.put_back_bytes;
        if (oldest != counters::oldest_unknown && (oldest == 0 || line.put_back_oldest < oldest))
            oldest = line.put_back_oldest;
    }

    auto time = [&](int column, TimestampTz t) {
        values[column] = TimestampTzGetDatum(t);
        nulls[column] = t == 0;
    };
    values[status_route_id] = Int32GetDatum(line.id);
    values[status_state] = CStringGetTextDatum(state);
    values[status_delivered] = Int64GetDatum(counters.delivered);
    values[status_dead] = Int64GetDatum(counters.dead);
    values[status_retries] = Int64GetDatum(counters.retries);
    values[status_skipped] = Int64GetDatum(counters.skipped);
    values[status_in_flight] = Int32GetDatum(in_flight);
    nulls[status_lag] = oldest == counters::oldest_unknown;
    if (!nulls[status_lag]) values[status_lag] = interval_of(oldest != 0 ? now - oldest : 0);
    time(status_last_delivered_at, counters.last_delivered_at);
    const bool well = counters.last_error != nullptr && counters.last_error_at <= past_error_at;
    auto error = [&](int words, int at, bool shown) {
        nulls[words] = counters.last_error == nullptr || !shown;
        if (!nulls[words]) values[words] = CStringGetTextDatum(counters.last_error);
        time(at, shown ? counters.last_error_at : 0);
    };
    error(status_last_error, status_last_error_at, !well);
    error(status_last_error_before, status_last_error_before_at, well);
    values[status_sender_pid] = Int32GetDatum(route.sender_pid);
    nulls[status_sender_pid] = !served;
    values[status_throughput] = Float8GetDatum(pace.throughput);
    auto latency = [&](int column, int64 microseconds) {
        values[column] = interval_of(microseconds);
        nulls[column] = microseconds < 0;
    };
    latency(status_latency_p50, pace.latency_p50);
    latency(status_latency_p99, pace.latency_p99);
    values[status_dead_letters] = Int64GetDatum(line.dead_letters);
    nulls[status_dead_letters] = line.dead_letters < 0;
    const int64 bytes = line.from_wal ? wal_behind(place) : counted ? backlog.bytes : -1;
    values[status_events_waiting] = Int64GetDatum(backlog.events);
    nulls[status_events_waiting] = !counted;
    values[status_bytes_waiting] = Int64GetDatum(bytes);
    nulls[status_bytes_waiting] = bytes < 0;
    values[status_waiting_estimated] = BoolGetDatum(!counted || backlog.estimated);
    time(status_paused_since, line.paused ? line.paused_at : 0);
    time(status_next_attempt_at, next_attempt_at);
    tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

// A route whose row, cursor or events cannot be read: others are shown all the same.
void put_unreadable(ReturnSetInfo* result, const RouteLine& line, const char* words) {
    Datum values[status_column_count] = {};
    bool nulls[status_column_count];
    std::fill(nulls, nulls + status_column_count, true);
    for (int column : {status_delivered, status_dead, status_retries, status_skipped}) {
        values[column] = Int64GetDatum(0);
        nulls[column] = false;
    }
    auto put = [&](int column, Datum value) {
        values[column] = value;
        nulls[column] = false;
    };
    put(status_route_id, Int32GetDatum(line.id));
    put(status_state, CStringGetTextDatum(line.paused ? "paused" : "stopped"));
    put(status_in_flight, Int32GetDatum(0));
    put(status_last_error, CStringGetTextDatum(psprintf("the route's status cannot be read: %s", words)));
    put(status_last_error_at, TimestampTzGetDatum(GetCurrentTimestamp()));
    put(status_throughput, Float8GetDatum(0));
    if (line.dead_letters >= 0) put(status_dead_letters, Int64GetDatum(line.dead_letters));
    tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

class Checks {
 public:
    explicit Checks(ReturnSetInfo* result) : result_(result) {}
    void put(const char* name, const char* level, const char* detail, const char* hint) {
        Datum values[4] = {CStringGetTextDatum(name), CStringGetTextDatum(level), CStringGetTextDatum(detail),
                           Datum(0)};
        bool nulls[4] = {false, false, false, hint == nullptr};
        if (hint != nullptr) values[3] = CStringGetTextDatum(hint);
        tuplestore_putvalues(result_->setResult, result_->setDesc, values, nulls);
    }

 private:
    ReturnSetInfo* result_;
};

// Returns whether those that do not run may be about to.
bool check_workers(Checks& checks) {
    if (counters::shared() == nullptr) {
        checks.put("preload", "error", "pg_eventbus is not in shared_preload_libraries: events wait in the log",
                   settings::preload_hint());
        return false;
    }
    checks.put("preload", "ok", "pg_eventbus is preloaded", nullptr);
    if (RecoveryInProgress()) {
        checks.put("workers", "ok", "this server is a standby: delivery begins when it is promoted", nullptr);
        return false;
    }
    counters::Database* database = counters::find_database(MyDatabaseId, false);
    int missing = database == nullptr ? 0 : database->missing_workers + database->missing_decoders;
    const bool starting = missing == 0 && counters::may_be_starting(database);
    if (counters::shared()->launcher_pid == 0 && starting)
        checks.put("launcher", "ok", "about to start", nullptr);
    else if (counters::shared()->launcher_pid == 0)
        checks.put("launcher", "error", "the launcher does not run",
                   "Look for it in the server log; it starts again within 5 seconds.");
    else
        checks.put("launcher", "ok", psprintf("process %d", counters::shared()->launcher_pid), nullptr);

    if (missing > 0)
        checks.put(
            "worker slots", "error",
            psprintf("%d of our workers found no free slot; max_worker_processes is %d", missing, max_worker_processes),
            psprintf("Set max_worker_processes = %d in postgresql.conf and restart the server.",
                     counters::wanted_worker_processes()));
    else
        checks.put("worker slots", "ok", psprintf("max_worker_processes is %d", max_worker_processes), nullptr);

    int keeper = counters::pid_of_keeper(MyDatabaseId);
    if (keeper == 0 && starting)
        checks.put("keeper", "ok", "about to start", nullptr);
    else if (keeper == 0)
        checks.put("keeper", "error", "no keeper runs in this database",
                   missing > 0 ? "See worker slots."
                               : "It starts within a second, within two minutes where connections to the database "
                                 "were not allowed until now; if not, look into the server log.");
    else
        checks.put("keeper", "ok", psprintf("process %d", keeper), nullptr);
    return starting;
}

// What is not delivered by intent, or because it is another's.
void check_delivery(Checks& checks) {
    if (RecoveryInProgress()) return;
    run_query(
        "SELECT count(*), string_agg(name, ', ' ORDER BY name) FROM eventbus.broker_config WHERE home IS DISTINCT FROM "
        "$1",
        {Argument::of(static_cast<const char*>(home_of(MyDatabaseId)))});
    const bool any = int8_at(0, 1) > 0;
    const bool delivers = settings::copies == settings::copies_deliver;
    if (any && !delivers && !was_upgraded())
        checks.put("copy", "error",
                   psprintf("brokers that have come here by a dump or with a copy of their database: %s; nothing is "
                            "delivered to them",
                            text_at(0, 2)),
                   counters::hint_of_copies);
    else if (any && delivers)
        checks.put("copy", "ok", psprintf("brokers of a copy, delivered to by eventbus.copies: %s", text_at(0, 2)),
                   nullptr);
    // What is done, not what this session has: SET does not matter, and ALTER DATABASE not to sessions that are older.
    const counters::Database* database = counters::my_database();
    const bool known = database != nullptr && counters::pid_of_keeper(MyDatabaseId) != 0;
    if (known ? database->delivery_off.load() : !settings::delivery)
        checks.put("delivery", "warning", "eventbus.delivery is off: events wait in the log and in the WAL",
                   "Set eventbus.delivery = on, for the server or with ALTER DATABASE, and reload.");
}

// An active route whose oldest event waits for longer than this, in seconds, and that has seen an error meanwhile.
constexpr int longest_wait = 10;

void check_routes(Checks& checks, bool starting) {
    run_query(
        "SELECT r.name, b.name, s.state, s.last_error, s.sender_pid, "
        "CASE WHEN s.lag = interval '0' THEN NULL "
        "ELSE coalesce(extract(epoch FROM s.lag)::bigint || ' s old', 'of unknown age') END, "
        "extract(epoch FROM s.lag) > $1 AND s.last_error_at > clock_timestamp() - s.lag, "
        "s.last_delivered_at IS NULL OR s.last_delivered_at < s.last_error_at "
        "FROM eventbus.delivery_status() s JOIN eventbus.route_config r ON r.id = s.route_id "
        "JOIN eventbus.broker_config b ON b.id = r.broker_id ORDER BY 1",
        {Argument::of(longest_wait)});
    for (uint64 i = 0; i < SPI_processed; ++i) {
        char* name = psprintf("route %s", text_at(i, 1));
        const char* broker = text_at(i, 2);
        const char* state = text_at(i, 3);
        const char* error = text_at(i, 4);
        if (error == nullptr) error = "no reason known";
        const char* lag = text_at(i, 6);
        auto waits = [lag](const char* oldest) {
            return lag == nullptr ? "nothing waits" : psprintf("%s is %s", oldest, lag);
        };
        bool is_refused = bool_at(i, 7);
        if (RecoveryInProgress())
            checks.put(name, "ok", "it is the primary that delivers; here it resumes after promotion", nullptr);
        else if (strcmp(state, "active") == 0 && is_refused)
            checks.put(name, "warning",
                       bool_at(i, 8)
                           ? psprintf("refused for the time being by broker %s: %s; the oldest undelivered event is %s",
                                      broker, error, lag)
                           : psprintf("delivers to broker %s, but the oldest undelivered event is %s; the last error "
                                      "was: %s",
                                      broker, lag, error),
                       "Fix what the broker complains of, such as its memory, its disk or the limits of a queue; what "
                       "is refused is tried again by itself, at most 30 s apart.");
        else if (strcmp(state, "active") == 0)
            checks.put(name, "ok", psprintf("delivers to broker %s; %s", broker, waits("the oldest undelivered event")),
                       nullptr);
        else if (strcmp(state, "paused") == 0)
            checks.put(name, "warning",
                       text_at(i, 4) == nullptr ? psprintf("paused; %s", waits("the oldest event that waits"))
                                                : psprintf("paused; %s; the last error was: %s",
                                                           waits("the oldest event that waits"), error),
                       "eventbus.resume_route resumes it.");
        else if (strcmp(state, "held") == 0)
            checks.put(
                name, "error", psprintf("held by broker %s: %s", broker, error),
                psprintf(
                    "Fix what the broker complains of, there or with eventbus.alter_broker or alter_route; SELECT * "
                    "FROM eventbus.test_route(%s) looks what is there. It is tried again by itself, and at once "
                    "after eventbus.resume_route.",
                    quote_literal_cstr(text_at(i, 1))));
        else if (strcmp(state, "blocked") == 0)
            checks.put(name, "warning", psprintf("broker %s asked us to wait: %s", broker, error),
                       "Look at the broker's memory and disk; events wait, and follow by themselves.");
        else if (strcmp(state, "retrying") == 0)
            checks.put(
                name, "error", psprintf("broker %s cannot be reached: %s", broker, error),
                psprintf("Start the broker, or the server behind the proxy that answers in its place, or correct its "
                         "address with eventbus.alter_broker; SELECT * FROM eventbus.test_route(%s) tries it step "
                         "by step. Events wait, and follow by themselves.",
                         quote_literal_cstr(text_at(i, 1))));
        else if (strcmp(state, "starting") == 0)
            checks.put(name, "warning",
                       text_at(i, 4) == nullptr ? "not ready: its replication slot is being made"
                                                : psprintf("not ready: %s", error),
                       "It begins by itself; what commits until then is not delivered by it.");
        else if (strcmp(state, "failing") == 0)
            checks.put(name, "error", psprintf("what it takes from the WAL is stalled: %s", error),
                       "Fix what it complains of; where that is a table, it can be left out by the route option "
                       "tables. It is "
                       "tried again by itself, at most 30 s apart; the server log has more.");
        else if (strcmp(state, "lost") == 0)
            checks.put(name, "error", error,
                       psprintf("Bring receivers up to date by other means, then SELECT eventbus.restart_route(%s).",
                                quote_literal_cstr(text_at(i, 1))));
        else if (strcmp(state, "stopped") == 0 && starting)
            checks.put(name, "ok", psprintf("its sender, for broker %s, is about to start", broker), nullptr);
        else if (strcmp(state, "stopped") == 0)
            checks.put(name, "error",
                       text_at(i, 4) == nullptr
                           ? psprintf("no sender runs for broker %s", broker)
                           : psprintf("no sender runs for broker %s; the last error was: %s", broker, error),
                       "See the other checks; if they are well, the server log says why the sender ended.");
        else
            checks.put(name, "ok", psprintf("connecting to broker %s", broker), nullptr);
    }
}

void check_lag(Checks& checks) {
    if (settings::lag_warning == 0) return;
    run_query(
        "SELECT string_agg(format('%s (%s s)', r.name, extract(epoch FROM s.lag)::bigint), ', ' ORDER BY s.lag DESC) "
        "FROM eventbus.delivery_status() s JOIN eventbus.route_config r ON r.id = s.route_id "
        "WHERE extract(epoch FROM s.lag) > $1",
        {Argument::of(static_cast<int32>(settings::lag_warning))});
    if (char* late = text_at(0, 1))
        checks.put("lag", "warning", psprintf("more than eventbus.lag_warning (%d s): %s", settings::lag_warning, late),
                   "eventbus.status shows the route's state and last error.");
    else
        checks.put("lag", "ok", psprintf("no route lags more than %d s", settings::lag_warning), nullptr);
}

void check_storage(Checks& checks) {
    run_query(
        "SELECT count(*) FILTER (WHERE NOT d.requeued), "
        "string_agg(DISTINCT r.name, ', ') FILTER (WHERE NOT d.requeued), bool_or(d.incomplete), "
        "count(*) FILTER (WHERE d.requeued), string_agg(DISTINCT r.name, ', ') FILTER (WHERE d.requeued) "
        "FROM eventbus.dead_letter_store d JOIN eventbus.route_config r ON r.id = d.route_id");
    int64 dead = int8_at(0, 1);
    int64 put_back = int8_at(0, 4);
    const char* told = "none";
    if (dead > 0) told = psprintf(INT64_FORMAT " dead letter%s on: %s", dead, dead == 1 ? "" : "s", text_at(0, 2));
    if (put_back > 0)
        told = psprintf("%s; put back, and not delivered yet, " INT64_FORMAT " on: %s", told, put_back, text_at(0, 5));
    if (dead > 0)
        checks.put("dead letters", "warning", told,
                   psprintf("See eventbus.dead_letter; then eventbus.redeliver or eventbus.discard.%s",
                            bool_at(0, 3) ? " What is incomplete is not sent again: publish it again, then "
                                            "eventbus.discard."
                                          : ""));
    else if (put_back > 0)
        checks.put("dead letters", "warning", told,
                   "They go out when their route does; eventbus.discard deletes them, too.");
    else
        checks.put("dead letters", "ok", told, nullptr);
    Finding log = look_at_log();
    checks.put("log", log.level, log.detail, log.hint);
    if (RecoveryInProgress()) return;
    look_at_wal(
        [](void* context, const char* name, const Finding& finding) {
            static_cast<Checks*>(context)->put(name, finding.level, finding.detail, finding.hint);
        },
        &checks);
}

}  // namespace

}  // namespace eventbus::health

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_delivery_status);
EVENTBUS_SQL_FUNCTION(eventbus_health);
EVENTBUS_SQL_FUNCTION(eventbus_route_status);
}

using namespace eventbus;
using namespace eventbus::health;

Datum eventbus_delivery_status(PG_FUNCTION_ARGS) {
    InitMaterializedSRF(fcinfo, 0);
    auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
    SPI_connect();
    need_our_version("show the status of routes");
    static_assert(log::segment_count == 4);
    const bool can_read_log = locked_table({"log_0", "log_1", "log_2", "log_3"}) == nullptr;
    const bool letters_locked = locked_table({"dead_letter_store"}) != nullptr;
    run_query(psprintf(
        "SELECT id, paused, topics, source = 'wal', paused_at, %s FROM eventbus.route_config r %s ORDER BY id",
        letters_locked ? "-1::bigint, 0::bigint, 0::bigint, NULL::timestamptz" : "dead, back, bytes, oldest",
        letters_locked ? ""
                       : "CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE NOT requeued) AS dead, "
                         "count(*) FILTER (WHERE requeued) AS back, coalesce(sum(octet_length(payload_text)) FILTER "
                         "(WHERE requeued), 0) + coalesce(sum(octet_length(payload_bytes)) FILTER (WHERE requeued), 0) "
                         "AS bytes, min(published_at) FILTER (WHERE requeued) AS oldest "
                         "FROM eventbus.dead_letter_store d WHERE d.route_id = r.id) AS letters"));
    auto count = static_cast<int>(SPI_processed);
    auto* lines = static_cast<RouteLine*>(palloc(sizeof(RouteLine) * (count + 1)));
    for (int i = 0; i < count; ++i)
        lines[i] = {int4_at(i, 1), bool_at(i, 2), text_at(i, 3), bool_at(i, 4), time_at(i, 5),
                    can_read_log,  int8_at(i, 6), int8_at(i, 7), int8_at(i, 8), time_at(i, 9)};
    const char* locked = locked_table({"cursor"});
    for (int i = 0; i < count; ++i) {
        if (locked != nullptr) {
            put_unreadable(result, lines[i], locked);
            continue;
        }
        ErrorData* error = attempt([&] { put_status(result, lines[i]); });
        if (error != nullptr) put_unreadable(result, lines[i], error_words(error));
    }
    SPI_finish();
    PG_RETURN_NULL();
}

// Of 0.1: where pg_upgrade brings it, it has to be found, until ALTER EXTENSION has replaced it.
Datum eventbus_route_status(PG_FUNCTION_ARGS) {
    (void)fcinfo;
    SPI_connect();
    need_our_version("show the status of routes");
    SPI_finish();
    PG_RETURN_NULL();
}

Datum eventbus_health(PG_FUNCTION_ARGS) {
    InitMaterializedSRF(fcinfo, 0);
    Checks checks(reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo));
    SPI_connect();
    const bool starting = check_workers(checks);
    if (!is_our_version()) {
        checks.put("version", "error", version_words(), version_hint());
    } else if (const char* locked = locked_table({"broker_config", "route_config", "cursor", "dead_letter_store"})) {
        checks.put("tables", "error", locked, locked_table_hint);
    } else {
        check_delivery(checks);
        check_routes(checks, starting);
        if (!RecoveryInProgress()) check_lag(checks);
        check_storage(checks);
        const Finding unrouted = look_at_unrouted();
        checks.put("unrouted", unrouted.level, unrouted.detail, unrouted.hint);
    }
    SPI_finish();
    PG_RETURN_NULL();
}
