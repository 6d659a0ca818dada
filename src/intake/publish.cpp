// What it is: eventbus.publish, publish_text and publish_bytes.
// Who calls it: applications and triggers, inside their transactions.
// Never: talks to a broker, or does anything that a rollback would not undo (ids excepted).
#include "intake/publish.hpp"

#include "core/headers.hpp"
#include "core/topic.hpp"
#include "counters/shared.hpp"
#include "intake/characters.hpp"
#include "intake/log_limit.hpp"
#include "intake/wake.hpp"
#include "postgres/guest.hpp"
#include "postgres/json_size.hpp"
#include "postgres/rights.hpp"
#include "router/route.hpp"
#include "settings/settings.hpp"

extern "C" {
#include "commands/extension.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
}

namespace eventbus::intake {

namespace {

// Events that are published where nobody will deliver them wait in the log; say so once a session.
void warn_without_preload() {
    static bool said = false;
    if (said || counters::shared() != nullptr) return;
    said = true;
    ereport(WARNING, (errmsg("pg_eventbus is not preloaded: events wait in the log and are not delivered"),
                      errhint("%s", settings::preload_hint())));
}

}  // namespace

static int64 publish(FunctionCallInfo fcinfo, const char* function, Payload payload) {
    log::NewEvent event = read_event(fcinfo, function, payload);
    return append(&event);
}

void check_topic(std::string_view topic) {
    check_convertible("topic", topic, leave_it_out);
    std::string_view delivered = to_utf8(topic);  // which may be longer
    if (!is_topic(delivered)) call_guest([&] { router::check_topic(delivered); });
}

void check_payload_size(Size bytes) {
    if (bytes > static_cast<Size>(settings::max_payload))
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("payload of %zu bytes is larger than eventbus.max_payload", bytes),
                        errdetail("The limit is %d bytes.", settings::max_payload),
                        errhint("Publish a reference to the data instead of the data, or raise eventbus.max_payload "
                                "(at most 256MB).")));
}

void check_key_size(Size bytes) {
    if (bytes > longest_key)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("key is longer than %d bytes", longest_key),
                        errhint("A key says what the event is about, such as order-17.")));
}

void check_headers(Datum headers) {
    Jsonb* json = DatumGetJsonbP(headers);
    const bool is_null = JB_ROOT_IS_SCALAR(json) && JBE_ISNULL(json->root.children[0]);
    if (!JB_ROOT_IS_OBJECT(json))
        ereport(ERROR,
                (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("headers must be a JSON object"),
                 is_null ? errhint("JSON's null is none. Where there are no headers, pass NULL or leave them out.")
                         : errhint("For example {\"traceparent\": \"00-...\", \"priority\": 5}.")));
    constexpr Size harmless = 64;  // too short to hide depth, or numbers with a million digits
    if (VARSIZE(json) <= harmless) return;
    const JsonMeasures found = measure_json(json, {deepest_headers, longest_headers});
    if (found.depth > deepest_headers)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("headers are nested deeper than %d", static_cast<int>(deepest_headers)),
                        errhint("Put the data into the payload.")));
    if (found.bytes > longest_headers)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("headers are larger than 1 MB"),
                        errdetail("It is their text that counts, in which 1e1000 has 1001 digits."),
                        errhint("Put the data into the payload.")));
}

static void find_place(log::NewEvent* event) {
    counters::Database* database = counters::my_database();
    event->place = database != nullptr ? &database->log : nullptr;
    warn_without_preload();
    check_space(*event, database);
}

int64 append(log::NewEvent* event) {
    find_place(event);
    return log::append(*event);
}

void append_later(log::NewEvent* event) {
    find_place(event);
    log::append_later(*event);
}

}  // namespace eventbus::intake

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_publish);
EVENTBUS_SQL_FUNCTION(eventbus_publish_text);
EVENTBUS_SQL_FUNCTION(eventbus_publish_bytes);
EVENTBUS_SQL_FUNCTION(eventbus_wake_workers);

Datum eventbus_publish(PG_FUNCTION_ARGS) {
    PG_RETURN_INT64(eventbus::intake::publish(fcinfo, "eventbus.publish", eventbus::intake::Payload::json));
}

Datum eventbus_publish_text(PG_FUNCTION_ARGS) {
    PG_RETURN_INT64(eventbus::intake::publish(fcinfo, "eventbus.publish_text", eventbus::intake::Payload::text));
}

Datum eventbus_publish_bytes(PG_FUNCTION_ARGS) {
    PG_RETURN_INT64(eventbus::intake::publish(fcinfo, "eventbus.publish_bytes", eventbus::intake::Payload::bytes));
}

Datum eventbus_wake_workers(PG_FUNCTION_ARGS) {
    eventbus::refuse_in_parallel(fcinfo);
    if (eventbus::counters::shared() == nullptr && creating_extension)
        // Scripts of extensions show no NOTICE.
        ereport(WARNING, (errmsg("pg_eventbus is not preloaded: events will wait in the log and not be delivered"),
                          errhint("%s", eventbus::settings::preload_hint())));
    // By this lock COMMIT PREPARED knows of it.
    const eventbus::log::Relations& log = eventbus::log::relations();
    LockRelationOid(get_relname_relid("route_config", log.schema), RowExclusiveLock);
    eventbus::intake::configuration_changed();
    PG_RETURN_VOID();
}
}
