// What it is: create_broker, alter_broker, drop_broker.
// Who calls it: operators, in SQL.
// Never: shows a password, or talks to a broker: what needs the network is the sender's.
#include "broker/loader.hpp"
#include "catalog/arguments.hpp"
#include "catalog/names.hpp"
#include "catalog/readiness.hpp"
#include "catalog/routes_gone.hpp"
#include "catalog/wal_right.hpp"
#include "core/bad_input.hpp"
#include "core/broker_settings.hpp"
#include "postgres/encoding.hpp"
#include "postgres/home.hpp"
#include "postgres/query.hpp"
#include "router/route.hpp"

extern "C" {
#include "catalog/pg_authid.h"
#include "pgstat.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
}

namespace eventbus::catalog {

namespace {

constexpr const char* options_example = "{\"heartbeat\": 10}";

void check_broker(const Caller& caller, const char* name, const char* url, const char* options) {
    constexpr const char* hint = "What a broker is told of it is UTF-8. Leave the character out.";
    check_convertible("name of the broker", name, hint);
    check_convertible("url", url, hint);
    check_convertible("options", options, hint);
    struct Checked {
        bool names_files;
        IdleOptions idle;
        UnreadableFiles unreadable;
    };
    std::string_view utf8_options = to_utf8(options);
    Checked checked = call_guest([&] {
        Checked found{};
        const BrokerOptions o = broker::read_broker(name, url, utf8_options, module_directory(), &found.idle).options;
        found.names_files = !(o.password_file.empty() && o.ca_file.empty() && o.crl_file.empty() &&
                              o.cert_file.empty() && o.key_file.empty());
        found.unreadable.look_at(o);
        return found;
    });
    // The sender reads these files with the server's rights.
    if (checked.names_files && !has_privs_of_role(caller.role, ROLE_PG_READ_SERVER_FILES))
        ereport(ERROR,
                (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("permission denied to name files of the server"),
                 errdetail("The server reads the files that options of the broker name: password_file, ca_file, "
                           "crl_file, cert_file, key_file."),
                 errhint("Let a superuser do it, or grant pg_read_server_files to the role, which may read every file "
                         "of the server then.")));
    for (std::size_t i = 0; i < checked.idle.count; ++i)
        ereport(NOTICE, (errmsg("broker option \"%s\" does nothing here", checked.idle.list[i].name),
                         errdetail("%s", checked.idle.list[i].why), errhint("Leave one of the two out.")));
    checked.unreadable.tell();
    tell_what_workers_lack();
}

// The statement has the password in it. From here on it shows nowhere: not to those who may see what others run, nor
// in the lines that the server logs of this statement's errors and waits. What encloses the call may quote it as well
// (a PL/pgSQL function's SQL, the parameters of a portal): while this is on the stack, errors have no context.
ErrorContextCallback* hide_statement() {
    const char* shown = "<hidden by pg_eventbus: it may hold a password>";
    pgstat_report_activity(STATE_RUNNING, shown);
    debug_query_string = shown;
    ErrorContextCallback* enclosing = error_context_stack;
    error_context_stack = nullptr;
    return enclosing;
}

void end_hiding(ErrorContextCallback* enclosing) {
    error_context_stack = enclosing;
}

// Whoever leads routes from the WAL elsewhere, or ends them, could have made them.
void check_sources(const Caller& caller, int32 broker_id) {
    run_query("SELECT min(name) FROM eventbus.route_config WHERE broker_id = $1 AND source = 'wal'",
              {Argument::of(broker_id)});
    if (!is_null_at(0, 1)) need_wal_right(caller, text_at(0, 1));
}

void check_option_name(std::string_view name, const char* url) {
    call_guest([&] {
        broker::check_broker_option(std::string(name), *broker::load_module(url_scheme(url), module_directory()));
    });
}

// Routes were checked against the broker's protocol; another URL may mean another protocol.
void check_routes(int32 broker_id, const char* url) {
    run_query("SELECT name, destination, topics, options::text FROM eventbus.route_config WHERE broker_id = $1",
              {Argument::of(broker_id)});
    for (uint64 i = 0; i < SPI_processed; ++i) {
        std::string_view name = to_utf8_or_marks(text_at(i, 1));
        std::string_view destination = to_utf8_or_marks(text_at(i, 2));
        std::string_view topics = to_utf8_or_marks(text_at(i, 3));
        std::string_view options = to_utf8_or_marks(text_at(i, 4));
        call_guest([&] {
            const broker::Module* module = broker::load_module(url_scheme(url), module_directory());
            try {
                router::Route(0, std::string(name), destination, topics, options, *module);
            } catch (const BadInput& bad) {
                throw BadInput(bad.message(),
                               "Route \"" + std::string(name) + "\" uses the broker." +
                                   (bad.detail().empty() ? "" : " ") + bad.detail(),
                               bad.hint());
            }
        });
    }
}

}  // namespace

}  // namespace eventbus::catalog

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_create_broker);
EVENTBUS_SQL_FUNCTION(eventbus_alter_broker);
EVENTBUS_SQL_FUNCTION(eventbus_drop_broker);
EVENTBUS_SQL_FUNCTION(eventbus_redacted_url);
}

using namespace eventbus;
using namespace eventbus::catalog;

Datum eventbus_create_broker(PG_FUNCTION_ARGS) {
    ErrorContextCallback* enclosing = hide_statement();
    char* name = required_name(fcinfo, 0, "create_broker", "broker");
    char* url = required_text(fcinfo, 1, "create_broker", "url");
    char* options = object_text(fcinfo, 2, "{}", options_example);
    const Caller caller = connect_as_owner(fcinfo);
    check_broker(caller, name, url, options);
    run_query(
        "INSERT INTO eventbus.broker_config (name, url, options, home) VALUES ($1, $2, $3::jsonb, $4) "
        "ON CONFLICT DO NOTHING",
        {Argument::of(name), Argument::of(url), Argument::of(options),
         Argument::of(static_cast<const char*>(home_of(MyDatabaseId)))});
    if (SPI_processed == 0)
        ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("broker \"%s\" already exists", name),
                        errhint("Choose another name, or use eventbus.alter_broker.")));
    finish_as_owner(caller);
    end_hiding(enclosing);
    PG_RETURN_VOID();
}

Datum eventbus_alter_broker(PG_FUNCTION_ARGS) {
    ErrorContextCallback* enclosing = hide_statement();
    char* name = required_text(fcinfo, 0, "alter_broker", "name");
    char* url = optional_text(fcinfo, 1);
    char* options = object_text(fcinfo, 2, nullptr, options_example);
    const bool replace = wants_replacement(fcinfo, 3, options);

    const Caller caller = connect_as_owner(fcinfo);
    int32 id = find_broker(name, Hold::change);
    check_sources(caller, id);
    run_query("SELECT url, options::text FROM eventbus.broker_config WHERE id = $1", {Argument::of(id)});
    char* new_url = url != nullptr ? url : text_at(0, 1);
    char* new_options = changed_options(text_at(0, 2), options, replace, check_option_name, new_url);
    check_broker(caller, name, new_url, new_options);
    check_routes(id, new_url);
    run_query("UPDATE eventbus.broker_config SET url = $2, options = $3::jsonb WHERE id = $1",
              {Argument::of(id), Argument::of(new_url), Argument::of(new_options)});
    finish_as_owner(caller);
    end_hiding(enclosing);
    PG_RETURN_VOID();
}

Datum eventbus_drop_broker(PG_FUNCTION_ARGS) {
    char* name = required_text(fcinfo, 0, "drop_broker", "name");
    bool cascade = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);

    const Caller caller = connect_as_owner(fcinfo);
    int32 id = find_broker(name, Hold::removal);
    run_query("SELECT string_agg(name, ', ' ORDER BY name) FROM eventbus.route_config WHERE broker_id = $1",
              {Argument::of(id)});
    char* routes = text_at(0, 1);
    if (routes != nullptr && !cascade)
        ereport(ERROR, (errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST), errmsg("broker \"%s\" is used by routes", name),
                        errdetail("Routes: %s.", routes),
                        errhint("Drop the routes first, or call eventbus.drop_broker with cascade => true.")));
    check_sources(caller, id);
    if (routes != nullptr) tell_of_routes_that_go(id, name);
    run_query("DELETE FROM eventbus.route_config WHERE broker_id = $1", {Argument::of(id)});
    run_query("DELETE FROM eventbus.broker_config WHERE id = $1", {Argument::of(id)});
    finish_as_owner(caller);
    PG_RETURN_VOID();
}

Datum eventbus_redacted_url(PG_FUNCTION_ARGS) {
    std::string_view url = text_view(PG_GETARG_TEXT_PP(0));
    char shown[2048];
    std::size_t length = call_guest([&] {
        std::string redacted = redact_url(url);
        return redacted.copy(shown, sizeof shown);
    });
    PG_RETURN_TEXT_P(cstring_to_text_with_len(
        shown, static_cast<int>(pg_mbcliplen(shown, static_cast<int>(length), static_cast<int>(length)))));
}
