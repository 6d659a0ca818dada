// What it is: eventbus.publish_wal and publish_now: events that are nothing but a message in the WAL.
// Who calls it: applications and triggers.
// Never: writes to the log.
#include "core/json.hpp"
#include "core/wal_message.hpp"
#include "counters/shared.hpp"
#include "intake/publish.hpp"
#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"

extern "C" {
#include "access/xlog.h"
#include "utils/jsonb.h"
#include "utils/pg_lsn.h"
}

namespace eventbus::intake {

namespace {

std::string_view json_text(Datum value) {
    Jsonb* json = DatumGetJsonbP(value);
    StringInfoData text;
    initStringInfo(&text);
    JsonbToCString(&text, &json->root, static_cast<int>(VARSIZE(json)));
    return to_utf8({text.data, static_cast<Size>(text.len)});
}

XLogRecPtr emit(FunctionCallInfo fcinfo, const char* function, bool transactional) {
    log::NewEvent given = read_event(fcinfo, function, Payload::json);
    if (!XLogLogicalInfoActive())
        ereport(
            ERROR,
            (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("%s requires wal_level >= logical", function),
             errdetail("No route could read the event from the WAL."),
             errhint("Put this line into postgresql.conf and restart the server: wal_level = logical. Or use "
                     "eventbus.publish, which needs no such setting.")));
    Event event;
    event.published_at = to_unix_us(GetCurrentTimestamp());
    event.topic = to_utf8(text_view(given.topic));
    if (given.key != nullptr) event.key = to_utf8(text_view(given.key));
    event.content_type = "application/json";
    if (given.has_headers) event.headers = json_text(given.headers);
    event.payload = given.payload_column == log::column_json
                        ? json_text(given.payload)
                        : to_utf8(text_view(reinterpret_cast<const text*>(DatumGetPointer(given.payload))));
    check_payload_size(event.payload.size());
    Size size = wal_message_size(event);
    auto* content = static_cast<char*>(MemoryContextAllocHuge(CurrentMemoryContext, size));
    write_wal_message(event, content);
    return compat::log_message(wal_message_prefix, content, size, transactional);
}

}  // namespace

}  // namespace eventbus::intake

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_publish_wal);
EVENTBUS_SQL_FUNCTION(eventbus_publish_now);
}

using namespace eventbus;

Datum eventbus_publish_wal(PG_FUNCTION_ARGS) {
    PG_RETURN_LSN(intake::emit(fcinfo, "eventbus.publish_wal", true));
}

Datum eventbus_publish_now(PG_FUNCTION_ARGS) {
    XLogRecPtr end = intake::emit(fcinfo, "eventbus.publish_now", false);
    XLogFlush(end);
    counters::Database* database = counters::my_database();
    if (database != nullptr && database->wal_readers > 0) counters::tell_wal_readers(database, end);
    PG_RETURN_LSN(end);
}
