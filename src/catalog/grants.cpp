// What it is: grant_publisher, grant_operator, grant_monitor and their revoke_...: GRANTs of what a role wants for its work.
// Who calls it: whoever may GRANT on the extension's objects, in SQL.
// Never: grants with rights that the caller has not.
#include "catalog/arguments.hpp"
#include "postgres/query.hpp"
#include "postgres/rights.hpp"

extern "C" {
#include "utils/builtins.h"
}

namespace eventbus::catalog {

namespace {

// Names, every overload of a function, joined as array literals.
struct Rights {
    const char* functions;
    const char* views;
};

#define EVENTBUS_MONITOR_FUNCTIONS \
    "delivery_status,health,redacted_url,routes_for,trigger_arguments,trigger_condition,trigger_error"
#define EVENTBUS_MONITOR_VIEWS "allowed,broker,captured,route,status"

constexpr Rights publisher_rights = {"{publish,publish_bytes,publish_now,publish_text,publish_wal,wait_for_delivery}",
                                     "{}"};
constexpr Rights monitor_rights = {"{" EVENTBUS_MONITOR_FUNCTIONS "}", "{" EVENTBUS_MONITOR_VIEWS "}"};
constexpr Rights operator_rights = {
    "{" EVENTBUS_MONITOR_FUNCTIONS
    ",adopt,alter_broker,alter_route,create_broker,create_route,discard,drop_broker,drop_route,pause_route,redeliver,"
    "restart_route,resume_route,wait_for_route,wake_workers}",
    "{" EVENTBUS_MONITOR_VIEWS ",dead_letter,event}"};

void run_for_each(const char* query, std::initializer_list<Argument> arguments) {
    run_query(query, arguments);
    const uint64 count = SPI_processed;
    auto** statements = static_cast<char**>(palloc(sizeof(char*) * (count + 1)));
    for (uint64 i = 0; i < count; ++i) statements[i] = text_at(i, 1);
    for (uint64 i = 0; i < count; ++i) run_query(statements[i]);
}

void give(FunctionCallInfo fcinfo, const char* function, const Rights& rights) {
    Argument role = required_role(fcinfo, function);
    refuse_in_restricted(fcinfo);
    SPI_connect();
    run_for_each(
        "SELECT format('GRANT USAGE ON SCHEMA eventbus TO %s', $1) "
        "UNION ALL "
        "SELECT format('GRANT EXECUTE ON FUNCTION %s TO %s', oid::regprocedure, $1) "
        "FROM pg_proc WHERE pronamespace = 'eventbus'::regnamespace AND proname = ANY ($2::text[]) "
        "UNION ALL "
        "SELECT format('GRANT SELECT ON %s TO %s', oid::regclass, $1) "
        "FROM pg_class WHERE relnamespace = 'eventbus'::regnamespace AND relname = ANY ($3::text[])",
        {role, Argument::of(rights.functions), Argument::of(rights.views)});
    SPI_finish();
}

// The schema goes with the last of what the role has in it.
void take(FunctionCallInfo fcinfo, const char* function, const Rights& rights) {
    Argument role = required_role(fcinfo, function);
    refuse_in_restricted(fcinfo);
    SPI_connect();
    run_for_each(
        "SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM %s', oid::regprocedure, $1) "
        "FROM pg_proc WHERE pronamespace = 'eventbus'::regnamespace AND proname = ANY ($2::text[]) "
        "UNION ALL "
        "SELECT format('REVOKE SELECT ON %s FROM %s', oid::regclass, $1) "
        "FROM pg_class WHERE relnamespace = 'eventbus'::regnamespace AND relname = ANY ($3::text[])",
        {role, Argument::of(rights.functions), Argument::of(rights.views)});
    run_for_each(
        "SELECT format('REVOKE USAGE ON SCHEMA eventbus FROM %s', $1) WHERE NOT EXISTS "
        "(SELECT FROM (SELECT proacl FROM pg_proc WHERE pronamespace = 'eventbus'::regnamespace UNION ALL "
        "SELECT relacl FROM pg_class WHERE relnamespace = 'eventbus'::regnamespace) o (acl), aclexplode(o.acl) a "
        "WHERE a.grantee = $1)",
        {role});
    SPI_finish();
}

}  // namespace

}  // namespace eventbus::catalog

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_grant_publisher);
EVENTBUS_SQL_FUNCTION(eventbus_revoke_publisher);
EVENTBUS_SQL_FUNCTION(eventbus_grant_operator);
EVENTBUS_SQL_FUNCTION(eventbus_revoke_operator);
EVENTBUS_SQL_FUNCTION(eventbus_grant_monitor);
EVENTBUS_SQL_FUNCTION(eventbus_revoke_monitor);
}

using namespace eventbus::catalog;

Datum eventbus_grant_publisher(PG_FUNCTION_ARGS) {
    give(fcinfo, "grant_publisher", publisher_rights);
    PG_RETURN_VOID();
}

Datum eventbus_revoke_publisher(PG_FUNCTION_ARGS) {
    take(fcinfo, "revoke_publisher", publisher_rights);
    PG_RETURN_VOID();
}

Datum eventbus_grant_operator(PG_FUNCTION_ARGS) {
    give(fcinfo, "grant_operator", operator_rights);
    PG_RETURN_VOID();
}

Datum eventbus_revoke_operator(PG_FUNCTION_ARGS) {
    take(fcinfo, "revoke_operator", operator_rights);
    PG_RETURN_VOID();
}

Datum eventbus_grant_monitor(PG_FUNCTION_ARGS) {
    give(fcinfo, "grant_monitor", monitor_rights);
    PG_RETURN_VOID();
}

Datum eventbus_revoke_monitor(PG_FUNCTION_ARGS) {
    take(fcinfo, "revoke_monitor", monitor_rights);
    PG_RETURN_VOID();
}
