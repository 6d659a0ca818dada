// What it is: events of DDL: the event trigger function, and the functions that switch it on and off.
// Who calls it: PostgreSQL after DDL; operators.
// Never: publishes the text of a command that may hold a password.
#include "capture/ddl.hpp"

#include "capture/capture.hpp"
#include "capture/ddl_text.hpp"
#include "intake/allowed.hpp"
#include "intake/characters.hpp"
#include "intake/publish.hpp"
#include "postgres/attempt.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "postgres/rights.hpp"
#include "postgres/type_json.hpp"
#include "router/route.hpp"
#include "source/log/log.hpp"

extern "C" {
#include "commands/event_trigger.h"
#include "parser/scansup.h"
#include "tcop/cmdtag.h"
#include "utils/array.h"
}

namespace eventbus::capture {

RunningCommand running_command = {};

namespace {

constexpr const char* trigger_names[] = {"ddl_command_end", "sql_drop", "table_rewrite"};

// What one row of PostgreSQL's functions about the running command says of an object.
constexpr const char* objects_of_command =
    "SELECT object_type, schema_name, object_identity, in_extension FROM pg_catalog.pg_event_trigger_ddl_commands() "
    "WHERE schema_name IS DISTINCT FROM 'pg_temp'";
constexpr const char* objects_dropped =
    "SELECT object_type, schema_name, object_identity, false FROM pg_catalog.pg_event_trigger_dropped_objects() "
    "WHERE (original OR normal) AND NOT is_temporary AND object_type <> 'default value'";
constexpr const char* object_rewritten =
    "SELECT i.type, i.schema, i.identity, false FROM "
    "pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, "
    "pg_catalog.pg_event_trigger_table_rewrite_oid(), 0) i WHERE i.schema IS DISTINCT FROM 'pg_temp'";

// Commands whose text may hold somebody's password are published without it.
bool may_hold_secrets(const char* tag) {
    for (const char* word : {"USER MAPPING", "SERVER", "SUBSCRIPTION", "FOREIGN DATA WRAPPER"})
        if (strstr(tag, word) != nullptr) return true;
    return false;
}

char* ddl_topic(const char* topic, const char* tag) {
    StringInfoData made;
    initStringInfo(&made);
    for (const char* at = topic; *at != '\0'; ++at) {
        if (*at != '{') {
            appendStringInfoChar(&made, *at);
        } else if (strncmp(at, "{tag}", 5) == 0) {
            appendStringInfoString(&made, tag);
            at += 4;
        } else {
            ereport(ERROR,
                    (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown placeholder in topic \"%s\"", topic),
                     errhint("The only one is {tag}, the command tag.")));
        }
    }
    intake::check_topic({made.data, static_cast<std::size_t>(made.len)});
    return made.data;
}

void append_text_field(StringInfo out, const char* name, const char* value) {
    appendStringInfo(out, "%s\"%s\":", out->len == VARHDRSZ ? "{" : ",", name);
    if (value == nullptr) {
        appendStringInfoString(out, "null");
    } else {
        append_json_string(out, value);
    }
}

struct Command {
    const char* event;
    const char* tag;
    const char* topic;
    const char* text;
    const char* user;
};

// What the client has sent may hold more than the command: only its own text is published, and none where the hook that
// knows where it stands is not there, nor where it cannot be read.
const char* command_text(const char* tag, bool bodies) {
    const RunningCommand& running = running_command;
    if (running.query == nullptr || may_hold_secrets(tag)) return nullptr;
    const char* begin = running.query + std::max(running.location, 0);
    while (scanner_isspace(*begin)) ++begin;
    const char* end =
        running.length > 0 ? running.query + std::max(running.location, 0) + running.length : begin + strlen(begin);
    while (end > begin && (scanner_isspace(end[-1]) || end[-1] == ';')) --end;
    const char* whole = pnstrdup(begin, static_cast<Size>(end - begin));
    const char* shown = nullptr;
    (void)attempt([&] { shown = without_secrets(whole, tag, bodies); });
    return shown;
}

text* key_of(const char* identity) {
    if (identity == nullptr) return nullptr;  // GRANT and its like name no object
    StringInfoData words;
    initStringInfo(&words);
    appendStringInfoSpaces(&words, VARHDRSZ);
    appendStringInfoString(&words, identity);
    return make_event_key(&words);
}

// The command itself fails: what it made would be known to nobody.
void check_characters_of(const Command& command, std::string_view payload) {
    Size good = convertible(payload);
    if (good == payload.size()) return;
    refuse_character(psprintf("%s cannot be published: it holds a character that cannot be delivered", command.tag),
                     payload, good, "Leave the character out; eventbus.uncapture_ddl ends the capture.");
}

void publish(const Command& command, uint64 row) {
    char* identity = text_at(row, 3);
    StringInfoData out;
    initStringInfo(&out);
    appendStringInfoSpaces(&out, VARHDRSZ);
    append_text_field(&out, "event", command.event);
    append_text_field(&out, "tag", command.tag);
    append_text_field(&out, "object_type", text_at(row, 1));
    append_text_field(&out, "schema", text_at(row, 2));
    append_text_field(&out, "identity", identity);
    append_text_field(&out, "command", command.text);
    append_text_field(&out, "user", command.user);
    appendStringInfo(&out, ",\"in_extension\":%s", bool_at(row, 4) ? "true" : "false");
    appendStringInfo(&out, ",\"ts_ms\":" INT64_FORMAT "}", to_unix_us(GetCurrentTimestamp()) / 1000);
    SET_VARSIZE(out.data, out.len);

    log::NewEvent event = {};
    event.topic = cstring_to_text(command.topic);
    event.key = key_of(identity);
    event.payload = PointerGetDatum(out.data);
    event.payload_column = log::column_text;
    event.captured_by = publishing_role();
    intake::check_payload_size(VARSIZE_ANY_EXHDR(DatumGetPointer(event.payload)));
    check_characters_of(command, text_view(reinterpret_cast<text*>(out.data)));
    (void)intake::append(&event);
}

bool wanted(ArrayType* tags, const char* tag) {
    if (tags == nullptr) return true;
    Datum* values;
    int count;
    deconstruct_array(tags, TEXTOID, -1, false, TYPALIGN_INT, &values, nullptr, &count);
    for (int i = 0; i < count; ++i)
        if (strcmp(TextDatumGetCString(values[i]), tag) == 0) return true;
    return false;
}

// Tags as PostgreSQL writes them, in an array; null: all.
Argument read_tags(char* text) {
    if (text == nullptr) return Argument::null_of(TEXTARRAYOID);
    ArrayBuildState* made = nullptr;
    for (char *rest = text, *word; (word = strsep(&rest, ",")) != nullptr;) {
        while (scanner_isspace(*word)) ++word;
        char* end = word + strlen(word);
        while (end > word && scanner_isspace(end[-1])) *--end = '\0';
        CommandTag tag = GetCommandTagEnum(word);
        if (tag == CMDTAG_UNKNOWN || !command_tag_event_trigger_ok(tag))
            ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                            errmsg("\"%s\" is no command that can be captured", word),
                            errhint("Tags are separated by commas, such as CREATE TABLE, ALTER TABLE, DROP TABLE; "
                                    "PostgreSQL's manual lists them under event triggers. Commands on databases, roles "
                                    "and tablespaces are not among them.")));
        made =
            accumArrayResult(made, CStringGetTextDatum(GetCommandTagName(tag)), false, TEXTOID, CurrentMemoryContext);
    }
    return {TEXTARRAYOID, makeArrayResult(made, CurrentMemoryContext), false};
}

struct KnownTag {
    const char* name;
    bool fires;  // event triggers
};
#define PG_CMDTAG(tag, name, event_trigger_ok, table_rewrite_ok, row_count) {name, event_trigger_ok},
constexpr KnownTag known_tags[] = {
#include "tcop/cmdtaglist.h"
};
#undef PG_CMDTAG

// As eventbus.capture does: topic grants are looked at now, for all that will be published, and not when it is.
void check_topics(const char* topic, const Argument& tags) {
    ArrayType* chosen = tags.null ? nullptr : DatumGetArrayTypeP(tags.value);
    for (const KnownTag& tag : known_tags)
        if (tag.fires && wanted(chosen, tag.name)) intake::check_allowed(ddl_topic(topic, tag.name));
}

bool drop_event_triggers() {
    for (const char* name : trigger_names) {
        char* trigger = psprintf("eventbus_%s", name);
        if (OidIsValid(get_event_trigger_oid(trigger, true))) run_query(psprintf("DROP EVENT TRIGGER %s", trigger));
    }
    return run_query("DELETE FROM eventbus.ddl_capture") > 0;
}

}  // namespace

}  // namespace eventbus::capture

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_publish_ddl);
EVENTBUS_SQL_FUNCTION(eventbus_capture_ddl);
EVENTBUS_SQL_FUNCTION(eventbus_uncapture_ddl);
}

using namespace eventbus;
using namespace eventbus::capture;

Datum eventbus_publish_ddl(PG_FUNCTION_ARGS) {
    if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("eventbus.publish_ddl can only be called as an event trigger")));
    auto* fired = reinterpret_cast<EventTriggerData*>(fcinfo->context);
    Command command = {};
    command.event = fired->event;
    command.tag = GetCommandTagName(fired->tag);
    command.user = readable_name(GetUserNameFromId(GetUserId(), false));

    // The one who runs the command need not be allowed to read our tables.
    const Caller caller = become(capture_functions().owner, SECURITY_RESTRICTED_OPERATION);
    SPI_connect();
    // The table of 0.1, which it is until ALTER EXTENSION, has no include_bodies; the update's own commands come here,
    // too.
    run_query(
        "SELECT topic, tags, coalesce((to_jsonb(d) ->> 'include_bodies')::boolean, false) FROM eventbus.ddl_capture d");
    if (SPI_processed == 1) {
        bool all;
        Datum tags = datum_at(0, 2, &all);
        char* topic = text_at(0, 1);
        const bool bodies = bool_at(0, 3);
        if (wanted(all ? nullptr : DatumGetArrayTypePCopy(tags), command.tag)) {
            command.topic = ddl_topic(topic, command.tag);
            command.text = command_text(command.tag, bodies);
            run_query(strcmp(fired->event, "sql_drop") == 0        ? objects_dropped
                      : strcmp(fired->event, "table_rewrite") == 0 ? object_rewritten
                                                                   : objects_of_command);
            uint64 count = SPI_processed;
            be_again(caller);
            for (uint64 i = 0; i < count; ++i) publish(command, i);
        }
    }
    be_again(caller);
    SPI_finish();
    PG_RETURN_NULL();
}

Datum eventbus_capture_ddl(PG_FUNCTION_ARGS) {
    if (PG_ARGISNULL(0)) ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("topic must not be null")));
    refuse_in_restricted(fcinfo);
    char* topic = text_to_cstring(PG_GETARG_TEXT_PP(0));
    (void)ddl_topic(topic, "CREATE TABLE");
    const bool bodies = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
    Argument tags = read_tags(PG_ARGISNULL(1) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(1)));
    check_topics(topic, tags);
    const Caller caller = connect_as_owner(fcinfo);
    (void)drop_event_triggers();
    run_query("INSERT INTO eventbus.ddl_capture (topic, tags, include_bodies) VALUES ($1, $2, $3)",
              {Argument::of(topic), tags, Argument::of(bodies)});
    for (const char* name : trigger_names)
        run_query(
            psprintf("CREATE EVENT TRIGGER eventbus_%s ON %s EXECUTE FUNCTION eventbus.publish_ddl()", name, name));
    finish_as_owner(caller);
    PG_RETURN_VOID();
}

Datum eventbus_uncapture_ddl(PG_FUNCTION_ARGS) {
    const Caller caller = connect_as_owner(fcinfo);
    bool any = drop_event_triggers();
    finish_as_owner(caller);
    if (!any)
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("DDL is not captured"),
                        errhint("eventbus.capture_ddl does it.")));
    PG_RETURN_VOID();
}
