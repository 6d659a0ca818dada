// What it is: create_route, alter_route, drop_route, pause_route, resume_route, restart_route.
// Who calls it: operators, in SQL.
// Never: moves an existing route's cursor.
#include "broker/loader.hpp"
#include "catalog/arguments.hpp"
#include "catalog/names.hpp"
#include "catalog/readiness.hpp"
#include "catalog/routes_gone.hpp"
#include "catalog/topic_patterns.hpp"
#include "catalog/wal_right.hpp"
#include "catalog/wal_selection.hpp"
#include "core/broker_settings.hpp"
#include "intake/wake.hpp"
#include "postgres/encoding.hpp"
#include "postgres/query.hpp"
#include "router/route.hpp"
#include "source/log/cursors.hpp"
#include "source/wal/preflight.hpp"
#include "source/wal/slot.hpp"
#include "source/wal/wal_cursors.hpp"

extern "C" {
#include "utils/builtins.h"
}

namespace eventbus::catalog {

namespace {

constexpr const char* options_example = "{\"order\": \"strict\"}";

// What create_route wants to know of the options.
struct Checked {
    bool earliest;  // begin with what the log still holds
    bool from_wal;
    wal::Selection selection;  // from the WAL
};

// Checks everything about a route.
Checked check_route(const char* name, const char* url, const char* destination, const char* topics,
                    const char* options) {
    constexpr const char* hint = "Destinations and topics are UTF-8 to brokers. Leave the character out.";
    check_convertible("name of the route", name, hint);
    check_convertible("destination", destination, hint);
    check_convertible("topics", topics, hint);
    check_convertible("options", options, hint);
    const broker::Module* module = call_guest([&] { return broker::load_module(url_scheme(url), module_directory()); });
    std::string_view utf8_destination = to_utf8(destination);
    std::string_view utf8_topics = to_utf8(topics);
    std::string_view utf8_options = to_utf8(options);
    Checked checked = call_guest([&] {
        router::Route route(0, name, utf8_destination, utf8_topics, utf8_options, *module);
        return Checked{route.options.earliest, route.options.from_wal, {}};
    });
    if (!checked.from_wal) return checked;
    checked.selection = wal_selection(options, *module);
    wal::check_selection(checked.selection);
    return checked;
}

char* url_of(int32 broker_id) {
    run_query("SELECT url FROM eventbus.broker_config WHERE id = $1", {Argument::of(broker_id)});
    return text_at(0, 1);
}

void check_option_name(std::string_view name, const char* url) {
    call_guest([&] {
        const broker::Module* module = broker::load_module(url_scheme(url), module_directory());
        router::known_route_options(*module).check(std::string(name));
    });
}

wal::SlotState wal_slot_of(int32 broker_id) {
    return wal::look_up_slot(wal::slot_name(MyDatabaseId, broker_id));
}

// What a route from the WAL wants of the caller and of the server.
void check_server(const Caller& caller, int32 broker_id) {
    need_wal_right(caller);
    const wal::SlotState slot = wal_slot_of(broker_id);
    if (slot.alien != nullptr)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE), errmsg("%s", slot.alien),
                        errdetail("The name is that of the broker's own slot."),
                        errhint("%s", wal::hint_to_drop(wal::slot_name(MyDatabaseId, broker_id)))));
    wal::Need need = wal::missing_setting(slot.exists);
    if (need.what != nullptr)
        ereport(ERROR,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("%s", need.what), errhint("%s", need.hint)));
}

void check_publications(const wal::Selection& selection, const char* topics) {
    if (const char* missing = wal::missing_publications(selection)) {
        run_query("SELECT coalesce(string_agg(quote_ident(pubname), ', ' ORDER BY 1), 'none') FROM pg_publication", {},
                  true);
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("publications that do not exist: %s", missing),
                        errhint("Existing publications: %s. CREATE PUBLICATION makes one.", text_at(0, 1))));
    }
    if (const char* table = contradicted_table(selection, topics))
        ereport(ERROR,
                (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                 errmsg("cannot use different column lists for table %s in different publications", table),
                 errdetail("Changes of the table could not be decoded."),
                 errhint("Name publications that agree on its columns, or leave it out by the option \"tables\".")));
}

void warn_of_tables(const char* route, const wal::Selection& selection, const char* topics) {
    const char* tables = tables_without_identity(selection, topics);
    if (tables != nullptr)
        ereport(WARNING,
                (errmsg("route \"%s\" takes changes of tables without a replica identity", route),
                 errdetail("%s: %s.", wal::words_without_identity(selection), tables),
                 errhint("Give them a primary key that is not deferrable, or ALTER TABLE ... REPLICA IDENTITY FULL.")));
}

// Patterns of names and of topics are two languages, and look alike.
void warn_of_messages(const char* route, const wal::Selection& selection) {
    const char* pattern = pattern_of_topics(selection.messages);
    if (pattern != nullptr)
        ereport(WARNING,
                (errmsg("option \"messages\" of route \"%s\" takes # as it is: \"%s\"", route, pattern),
                 errdetail("No topic holds one."),
                 errhint("Here * stands for any characters, dots among them, as in \"shop.*\". Patterns with # "
                         "are for the route's topics.")));
}

void tell_of_patterns(const char* route, const wal::Selection& selection, const char* topics) {
    const bool nothing = takes_nothing(selection, topics);
    if (nothing)
        ereport(NOTICE,
                (errmsg("route \"%s\" takes nothing that there is now", route),
                 errdetail("No table has changes of its tables, publications, operations and topics together, and "
                           "its \"messages\" are none."),
                 errhint("The topic of a row is schema.table.operation.")));
    const char* patterns = wal::patterns_without_tables(selection);
    const char* named = patterns == nullptr ? topics_without_rows(selection, topics) : nullptr;
    if (patterns == nullptr && named == nullptr && !nothing && names_tables_in_vain(selection, topics))
        ereport(NOTICE, (errmsg("the topics of route \"%s\" fit no row of the tables that it names", route),
                         errdetail("It takes messages alone."),
                         errhint("The topic of a row is schema.table.operation. For messages alone, write "
                                 "\"tables\": \"-*.*\".")));
    if (named != nullptr)
        ereport(NOTICE, (errmsg("the topics of route \"%s\" name tables of which it gets no rows", route),
                         errdetail("No rows come under the name of: %s.", named),
                         errhint("Name the tables, or the publications, that have them. For messages alone, write "
                                 "\"tables\": \"-*.*\".")));
    if (patterns != nullptr)
        ereport(NOTICE,
                (strchr(patterns, '(') == nullptr ? errmsg("route \"%s\" asks for tables that do not exist yet", route)
                                                  : errmsg("route \"%s\" names tables of which it gets no rows", route),
                 errdetail("No table is taken for: %s.", patterns),
                 errhint("If there should be some by now, compare with the names in pg_tables, letter by "
                         "letter; for no tables write \"tables\": \"-*.*\".")));
}

// What a route from the WAL chooses.
void check_choice(const char* route, const wal::Selection& selection, const char* topics) {
    check_publications(selection, topics);
    warn_of_tables(route, selection, topics);
    tell_of_patterns(route, selection, topics);
    warn_of_messages(route, selection);
}

void say_when(const char* route, const char* begins) {
    ereport(NOTICE,
            (errmsg("route \"%s\" %s when its replication slot is ready", route, begins),
             errdetail("What commits until then is not delivered."),
             errhint("eventbus.wait_for_route(%s) waits for that, after COMMIT; its state in eventbus.status is "
                     "\"active\" from then on.",
                     quote_literal_cstr(route))));
}

// The decoder makes the first slot, after COMMIT; one that is being made has confirmed nothing yet.
void tell_of_start(const char* route, int32 broker_id) {
    wal::SlotState slot = wal_slot_of(broker_id);
    if (!slot.exists || slot.lost || slot.confirmed == InvalidXLogRecPtr) say_when(route, "begins");
}

// A route that exists; from the WAL, only for those who could have made it.
int32 find_own_route(const Caller& caller, const char* name, Hold hold) {
    int32 id = find_route(name, hold);
    run_query("SELECT source = 'wal' FROM eventbus.route_config WHERE id = $1", {Argument::of(id)});
    if (bool_at(0, 1)) need_wal_right(caller, name);
    return id;
}

const char* source_of(const Checked& checked) {
    return checked.from_wal ? "wal" : "log";
}

void set_paused(FunctionCallInfo fcinfo, const char* function, bool paused) {
    char* name = required_text(fcinfo, 0, function, "name");
    const Caller caller = connect_as_owner(fcinfo);
    run_query(
        "UPDATE eventbus.route_config SET paused = $2, "
        "paused_at = CASE WHEN NOT $2 THEN NULL WHEN paused THEN paused_at ELSE clock_timestamp() END WHERE id = $1",
        {Argument::of(find_own_route(caller, name, Hold::change)), Argument::of(paused)});
    finish_as_owner(caller);
}

}  // namespace

}  // namespace eventbus::catalog

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_create_route);
EVENTBUS_SQL_FUNCTION(eventbus_alter_route);
EVENTBUS_SQL_FUNCTION(eventbus_drop_route);
EVENTBUS_SQL_FUNCTION(eventbus_pause_route);
EVENTBUS_SQL_FUNCTION(eventbus_resume_route);
EVENTBUS_SQL_FUNCTION(eventbus_restart_route);
}

using namespace eventbus;
using namespace eventbus::catalog;

Datum eventbus_create_route(PG_FUNCTION_ARGS) {
    char* name = required_name(fcinfo, 0, "create_route", "route");
    char* broker = required_text(fcinfo, 1, "create_route", "broker");
    char* destination = required_text(fcinfo, 2, "create_route", "destination");
    char* topics = required_text(fcinfo, 3, "create_route", "topics");
    char* options = object_text(fcinfo, 4, "{}", options_example);
    refuse_what_is_no_pattern(topics);

    const Caller caller = connect_as_owner(fcinfo);
    int32 broker_id = find_broker(broker, Hold::share);
    Checked checked = check_route(name, url_of(broker_id), destination, topics, options);

    tell_of_odd_patterns(topics);
    if (checked.from_wal) {
        check_server(caller, broker_id);
        check_choice(name, checked.selection, topics);
    }
    // Until this transaction has committed, rotation must not release what the route will want: it needs these
    // locks, and looks at the routes only once it has them.
    const log::Relations& log = log::relations();
    for (Oid segment : log.segments) LockRelationOid(segment, AccessShareLock);

    run_query(
        "INSERT INTO eventbus.route_config (name, broker_id, destination, topics, options, source) "
        "VALUES ($1, $2, $3, $4, $5::jsonb, $6) ON CONFLICT DO NOTHING RETURNING id",
        {Argument::of(name), Argument::of(broker_id), Argument::of(destination), Argument::of(topics),
         Argument::of(options), Argument::of(source_of(checked))});
    if (SPI_processed == 0)
        ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("route \"%s\" already exists", name),
                        errhint("Choose another name, or use eventbus.alter_route.")));
    int32 id = int4_at(0, 1);
    if (checked.from_wal) {
        wal::make_cursor(id);
        tell_of_start(name, broker_id);
    } else {
        log::make_cursor(id, checked.earliest);
    }
    tell_what_workers_lack();
    finish_as_owner(caller);
    PG_RETURN_VOID();
}

Datum eventbus_alter_route(PG_FUNCTION_ARGS) {
    char* name = required_text(fcinfo, 0, "alter_route", "name");
    char* destination = optional_text(fcinfo, 1);
    char* topics = optional_text(fcinfo, 2);
    char* options = object_text(fcinfo, 3, nullptr, options_example);
    const bool replace = wants_replacement(fcinfo, 4, options);
    if (topics != nullptr) refuse_what_is_no_pattern(topics);

    const Caller caller = connect_as_owner(fcinfo);
    int32 id = find_own_route(caller, name, Hold::change);
    run_query(
        "SELECT destination, topics, options::text, broker_id, source, "
        "$2::jsonb -> 'start' <> coalesce(options -> 'start', 'null') FROM eventbus.route_config WHERE id = $1",
        {Argument::of(id), Argument::of(static_cast<const char*>(options))});
    char* new_destination = destination != nullptr ? destination : text_at(0, 1);
    char* new_topics = topics != nullptr ? topics : text_at(0, 2);
    const bool takes_others = strcmp(new_topics, text_at(0, 2)) != 0;
    int32 broker_id = int4_at(0, 4);
    char* source = text_at(0, 5);
    bool wants_start = bool_at(0, 6);
    char* current_options = text_at(0, 3);
    const char* url = url_of(broker_id);
    char* new_options = changed_options(current_options, options, replace, check_option_name, url);
    Checked checked = check_route(name, url, new_destination, new_topics, new_options);
    if (strcmp(source, source_of(checked)) != 0)
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("route \"%s\" cannot change its source", name),
                        errdetail("Its events come from %s, and its cursor stands there.",
                                  strcmp(source, "wal") == 0 ? "the WAL" : "the log"),
                        errhint("Keep \"source\" in the options as it is, or drop the route and create it again.")));
    if (topics != nullptr) tell_of_odd_patterns(topics);
    if (checked.from_wal) {
        check_server(caller, broker_id);
        check_choice(name, checked.selection, new_topics);
    }
    if (wants_start)
        ereport(NOTICE, (errmsg("route option \"start\" does nothing here"),
                         errdetail("Only create_route reads it: route \"%s\" resumes where it stands.", name),
                         errhint("Leave it out, or drop the route and create it again.")));
    if (takes_others && !checked.from_wal) log::judge_no_earlier_event();
    run_query("UPDATE eventbus.route_config SET destination = $2, topics = $3, options = $4::jsonb WHERE id = $1",
              {Argument::of(id), Argument::of(new_destination), Argument::of(new_topics), Argument::of(new_options)});
    finish_as_owner(caller);
    PG_RETURN_VOID();
}

Datum eventbus_drop_route(PG_FUNCTION_ARGS) {
    char* name = required_text(fcinfo, 0, "drop_route", "name");
    const Caller caller = connect_as_owner(fcinfo);
    const int32 id = find_own_route(caller, name, Hold::removal);
    tell_of_route_that_goes(id, name);
    run_query("DELETE FROM eventbus.route_config WHERE id = $1", {Argument::of(id)});
    finish_as_owner(caller);
    PG_RETURN_VOID();
}

Datum eventbus_pause_route(PG_FUNCTION_ARGS) {
    set_paused(fcinfo, "pause_route", true);
    PG_RETURN_VOID();
}

Datum eventbus_resume_route(PG_FUNCTION_ARGS) {
    set_paused(fcinfo, "resume_route", false);
    PG_RETURN_VOID();
}

Datum eventbus_restart_route(PG_FUNCTION_ARGS) {
    char* name = required_text(fcinfo, 0, "restart_route", "name");
    const Caller caller = connect_as_owner(fcinfo);
    wal::restart_cursor(find_own_route(caller, name, Hold::change));
    if (SPI_processed == 0)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("route \"%s\" is not lost", name),
                        errdetail("Only a route from the WAL whose replication slot was lost begins again."),
                        errhint("eventbus.resume_route resumes a paused route and tries a held one at once.")));
    say_when(name, "begins again");
    finish_as_owner(caller);
    intake::configuration_changed();
    PG_RETURN_VOID();
}
