// What it is: eventbus.publish, publish_text and publish_bytes.
// Who calls it: applications and triggers, inside their transactions.
// Never: talks to a broker, or does anything that a rollback would not undo (ids excepted).
#include "intake/publish.hpp"

#include "core/headers.hpp"
#include "core/topic.hpp"
#include "intake/allowed.hpp"
#include "intake/characters.hpp"
#include "intake/room.hpp"
#include "intake/wake.hpp"
#include "postgres/guest.hpp"
#include "postgres/json_size.hpp"
#include "router/route.hpp"
#include "settings/settings.hpp"
#include "status/shared.hpp"

extern "C" {
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
}

namespace eventbus::intake {

namespace {

constexpr const char* topic_hint = "A topic is 1 to 255 bytes long: words joined by dots, such as shop.order.created.";

[[noreturn]] void refuse_null(const char* function, const char* argument) {
    ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", argument),
                    errdetail("%s was called with a null %s.", function, argument),
                    std::strcmp(argument, "topic") == 0
                        ? errhint("%s", topic_hint)
                        : errhint("Publish the JSON value null, or an empty text, where there is nothing to say.")));
    pg_unreachable();
}

// What is delivered is the text of a jsonb. The worst that its stored form can hide is a number such as 1e131071, a
// dozen bytes that become 131072; below that the text need not be made to know that it is small enough.
constexpr Size worst_growth = 16 * 1024;

void check_json_size(Datum payload) {
    Size stored = VARSIZE_ANY_EXHDR(DatumGetPointer(payload));
    check_payload_size(stored / 2);  // the text is never less than half of the stored form
    if (stored < static_cast<Size>(settings::max_payload) / worst_growth) return;
    Jsonb* json = DatumGetJsonbP(payload);
    StringInfoData text;
    initStringInfo(&text);
    JsonbToCString(&text, &json->root, static_cast<int>(stored));
    check_payload_size(static_cast<Size>(text.len));
    pfree(text.data);
}

void check_content_type(std::string_view type) {
    bool valid = !type.empty() && type.size() <= 255;
    for (char c : type) valid = valid && c >= 0x20 && c < 0x7f;
    if (!valid)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("content_type must be 1 to 255 printable ASCII characters"),
                        errhint("For example text/plain, application/xml or application/octet-stream.")));
}

// Events that are published where nobody will deliver them wait in the log; say so once a session.
void warn_without_preload() {
    static bool said = false;
    if (said || status::shared() != nullptr) return;
    said = true;
    ereport(WARNING, (errmsg("pg_eventbus is not preloaded: events wait in the log and are not delivered"),
                      errhint("Add pg_eventbus to shared_preload_libraries and restart the server.")));
}

constexpr int argument_topic = 0;
constexpr int argument_payload = 1;
constexpr int argument_key = 2;
constexpr int argument_headers = 3;
constexpr int argument_content_type = 4;

}  // namespace

log::NewEvent read_event(FunctionCallInfo fcinfo, const char* function, log::Column payload_column) {
    if (PG_ARGISNULL(argument_topic)) refuse_null(function, "topic");
    if (PG_ARGISNULL(argument_payload)) refuse_null(function, "payload");
    PreventCommandIfReadOnly(function);
    PreventCommandDuringRecovery(function);

    log::NewEvent event = {};
    event.topic = PG_GETARG_TEXT_PP(argument_topic);
    check_topic(text_view(event.topic));
    check_allowed(text_view(event.topic));

    // Detoasted but in their packed form: what is stored is what came.
    event.payload = PointerGetDatum(PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(argument_payload)));
    event.payload_column = payload_column;
    if (payload_column == log::column_json)
        check_json_size(event.payload);
    else
        check_payload_size(VARSIZE_ANY_EXHDR(DatumGetPointer(event.payload)));

    if (!PG_ARGISNULL(argument_key)) {
        event.key = PG_GETARG_TEXT_PP(argument_key);
        check_key_size(VARSIZE_ANY_EXHDR(event.key));
    }
    if (!PG_ARGISNULL(argument_headers)) {
        event.headers = PointerGetDatum(PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(argument_headers)));
        event.has_headers = true;
        check_headers(event.headers);
    }

    if (payload_column != log::column_json) {
        if (PG_ARGISNULL(argument_content_type)) refuse_null(function, "content_type");
        event.content_type = PG_GETARG_TEXT_PP(argument_content_type);
        check_content_type(text_view(event.content_type));
    }

    check_characters(event);
    return event;
}

static int64 publish(FunctionCallInfo fcinfo, const char* function, log::Column payload_column) {
    log::NewEvent event = read_event(fcinfo, function, payload_column);
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
    if (!JB_ROOT_IS_OBJECT(json))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("headers must be a JSON object"),
                        errhint("For example {\"traceparent\": \"00-...\", \"priority\": 5}.")));
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
    status::Database* database = status::my_database();
    event->place = database != nullptr ? &database->log : nullptr;
    warn_without_preload();
    check_room(*event, database);
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
    PG_RETURN_INT64(eventbus::intake::publish(fcinfo, "eventbus.publish", eventbus::log::column_json));
}

Datum eventbus_publish_text(PG_FUNCTION_ARGS) {
    PG_RETURN_INT64(eventbus::intake::publish(fcinfo, "eventbus.publish_text", eventbus::log::column_text));
}

Datum eventbus_publish_bytes(PG_FUNCTION_ARGS) {
    PG_RETURN_INT64(eventbus::intake::publish(fcinfo, "eventbus.publish_bytes", eventbus::log::column_bytes));
}

Datum eventbus_wake_workers(PG_FUNCTION_ARGS) {
    (void)fcinfo;
    // By this lock COMMIT PREPARED knows of it.
    const eventbus::log::Relations& log = eventbus::log::relations();
    LockRelationOid(get_relname_relid("route_config", log.schema), RowExclusiveLock);
    eventbus::intake::configuration_changed();
    PG_RETURN_VOID();
}
}
