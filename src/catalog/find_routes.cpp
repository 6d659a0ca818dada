// What it is: routes_for (where would this go), wait_for_route (is it there yet).
// Who calls it: operators, in SQL.
// Never: publishes, changes or reads an event.
#include "broker/loader.hpp"
#include "catalog/arguments.hpp"
#include "counters/shared.hpp"
#include "postgres/attempt.hpp"
#include "postgres/encoding.hpp"
#include "postgres/query.hpp"
#include "postgres/steady.hpp"
#include "router/route.hpp"
#include "settings/settings.hpp"

extern "C" {
#include "access/xact.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
}

namespace eventbus::catalog {

namespace {

// What the router makes of an event; texts are of the current memory context.
struct Rendered {
    bool takes = false;
    bool has_routing_key = false;
    char* destination = nullptr;
    char* routing_key = nullptr;
};

struct RenderedTexts {
    bool takes = false;
    bool has_routing_key = false;
    std::string destination;
    std::string routing_key;
};

RenderedTexts render(const Event& event, std::string_view url, const std::string& name, std::string_view destination,
                     std::string_view topics, std::string_view options) {
    const broker::Module* module = broker::load_module(url_scheme(url), module_directory());
    const router::Route route(0, name, destination, topics, options, *module);
    RenderedTexts texts;
    texts.takes = route.topics.matches(event.topic);
    if (!texts.takes) return texts;
    std::string scratch;
    texts.destination = route.destination.kind + ':' + std::string(route.destination.name.render(event, scratch));
    texts.has_routing_key = route.has_routing_key;
    texts.routing_key = route.routing_key.render(event, scratch);
    return texts;
}

Rendered render_row(const Event& event, uint64 row) {
    std::string_view url = to_utf8_or_marks(text_at(row, 3));
    std::string_view name = to_utf8_or_marks(text_at(row, 1));
    std::string_view destination = to_utf8_or_marks(text_at(row, 4));
    std::string_view topics = to_utf8_or_marks(text_at(row, 5));
    std::string_view options = to_utf8_or_marks(text_at(row, 6));
    RenderedTexts* texts = nullptr;
    GuestError error;
    catch_guest(
        error, [&] { texts = new RenderedTexts(render(event, url, std::string(name), destination, topics, options)); });
    if (error.kind != GuestError::Kind::none) {
        ereport(NOTICE, (errmsg("route \"%s\" cannot be used, and is left out: %s", text_at(row, 1), error.message),
                         errhint("Correct it with eventbus.alter_route, or eventbus.drop_route it.")));
        return {};
    }
    Rendered rendered;
    ErrorData* failure = attempt([&] {
        rendered = {texts->takes, texts->has_routing_key, from_utf8(texts->destination), from_utf8(texts->routing_key)};
    });
    call_guest([&] { delete texts; });
    if (failure != nullptr) ReThrowError(failure);
    return rendered;
}

[[noreturn]] void refuse_waiting(const char* message, const char* hint) {
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("%s", message), errhint("%s", hint)));
    pg_unreachable();
}

void check_server_serves() {
    if (RecoveryInProgress())
        refuse_waiting("cannot wait for a route on a standby", "Call eventbus.wait_for_route on the primary.");
    if (counters::shared() == nullptr)
        refuse_waiting("pg_eventbus is not preloaded: nothing serves a route here", settings::preload_hint());
}

enum class Ready : std::uint8_t { yes, not_yet, never };

// As its sender says now.
Ready is_ready(const char* name) {
    SPI_connect();
    PushActiveSnapshot(GetLatestSnapshot());
    run_query("SELECT id, paused, xmin::text FROM eventbus.route_config WHERE name = $1", {Argument::of(name)}, true);
    PopActiveSnapshot();
    if (SPI_processed == 0)
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("route \"%s\" does not exist", name),
                        errhint("The view eventbus.route lists the routes.")));
    if (TransactionIdIsCurrentTransactionId(static_cast<TransactionId>(strtoul(text_at(0, 3), nullptr, 10))))
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
                        errmsg("cannot wait for route \"%s\" in the transaction that makes or changes it", name),
                        errhint("COMMIT first, then call eventbus.wait_for_route.")));
    const int32 id = int4_at(0, 1);
    const bool paused = bool_at(0, 2);
    SPI_finish();
    counters::Route route;
    const bool known = counters::copy_route(MyDatabaseId, id, &route);
    if (paused || (known && strcmp(route.state, "lost") == 0)) return Ready::never;
    // What its sender was before it has seen the newest brokers and routes says nothing of these.
    const counters::Database* database = counters::my_database();
    const bool is_new = database != nullptr && route.configuration == database->configuration;
    return known && is_new && route.sender_pid != 0 && strcmp(route.state, "active") == 0 ? Ready::yes : Ready::not_yet;
}

// What is asked for is the work of other processes, which tell nobody of it but the status.
bool wait_until_ready(const char* name, SteadyTime until) {
    constexpr long look_ms = 50;
    for (;;) {
        const Ready ready = is_ready(name);
        if (ready != Ready::not_yet) return ready == Ready::yes;
        const SteadyTime now = steady_now();
        if (now >= until) return false;
        (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, look_ms, PG_WAIT_EXTENSION);
        ResetLatch(MyLatch);
        CHECK_FOR_INTERRUPTS();
    }
}

}  // namespace

}  // namespace eventbus::catalog

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_routes_for);
EVENTBUS_SQL_FUNCTION(eventbus_wait_for_route);
}

using namespace eventbus;
using namespace eventbus::catalog;

Datum eventbus_routes_for(PG_FUNCTION_ARGS) {
    const char* topic = required_text(fcinfo, 0, "routes_for", "topic");
    const char* key = optional_text(fcinfo, 1);
    InitMaterializedSRF(fcinfo, 0);
    auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
    Event event;
    event.topic = to_utf8(topic);
    if (key != nullptr) event.key = to_utf8(key);
    call_guest([&] { router::check_topic(event.topic); });

    SPI_connect();
    run_query(
        "SELECT r.name, b.name, b.url, r.destination, r.topics, r.options::text, s.state "
        "FROM eventbus.route_config r JOIN eventbus.broker_config b ON b.id = r.broker_id "
        "LEFT JOIN eventbus.delivery_status() s ON s.route_id = r.id ORDER BY r.name");
    for (uint64 row = 0; row < SPI_processed; ++row) {
        const Rendered rendered = render_row(event, row);
        if (!rendered.takes) continue;
        const char* state = text_at(row, 7);
        Datum values[5] = {CStringGetTextDatum(text_at(row, 1)), CStringGetTextDatum(text_at(row, 2)),
                           CStringGetTextDatum(rendered.destination), CStringGetTextDatum(rendered.routing_key),
                           state != nullptr ? CStringGetTextDatum(state) : Datum(0)};
        bool nulls[5] = {false, false, false, !rendered.has_routing_key, state == nullptr};
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    }
    SPI_finish();
    PG_RETURN_NULL();
}

Datum eventbus_wait_for_route(PG_FUNCTION_ARGS) {
    const char* name = required_text(fcinfo, 0, "wait_for_route", "name");
    if (PG_ARGISNULL(1)) refuse_null("wait_for_route", "timeout");
    const SteadyTime until = steady_now() + microseconds_of(PG_GETARG_INTERVAL_P(1));
    check_server_serves();
    PG_RETURN_BOOL(wait_until_ready(name, until));
}
