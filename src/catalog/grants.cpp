// What it is: grant_publisher, grant_operator, grant_monitor and their revoke_...: GRANTs of what a role wants for its work.
// Who calls it: whoever may GRANT on the extension's objects, in SQL.
// Never: grants with rights that the caller has not.
#include "catalog/arguments.hpp"
#include "postgres/query.hpp"
#include "postgres/rights.hpp"

extern "C" {
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
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
#define EVENTBUS_MONITOR_VIEWS "allowed,broker,captured,route,status,unrouted"

constexpr Rights publisher_rights = {"{publish,publish_bytes,publish_now,publish_text,publish_wal,wait_for_delivery}",
                                     "{}"};
constexpr Rights monitor_rights = {"{" EVENTBUS_MONITOR_FUNCTIONS "}", "{" EVENTBUS_MONITOR_VIEWS "}"};
constexpr Rights operator_rights = {
    "{" EVENTBUS_MONITOR_FUNCTIONS
    ",adopt,alter_broker,alter_route,captured_payload,create_broker,create_route,discard,drop_broker,drop_route,home,"
    "pause_route,redeliver,restart_route,resume_route,test_broker,test_route,wait_for_route,wake_workers}",
    "{" EVENTBUS_MONITOR_VIEWS ",dead_letter,event}"};

void run_for_each(const char* query, std::initializer_list<Argument> arguments) {
    run_query(query, arguments);
    const uint64 count = SPI_processed;
    auto** statements = static_cast<char**>(palloc(sizeof(char*) * (count + 1)));
    for (uint64 i = 0; i < count; ++i) statements[i] = text_at(i, 1);
    for (uint64 i = 0; i < count; ++i) run_query(statements[i]);
}

// GRANT and REVOKE warn of what they leave undone for want of a right, one object at a time, and succeed.
void need_grant_options(FunctionCallInfo fcinfo, const Rights& rights, bool schema) {
    run_query(
        "SELECT what FROM (SELECT 'schema eventbus' WHERE $3 AND NOT has_schema_privilege('eventbus', 'USAGE WITH "
        "GRANT OPTION') "
        "UNION ALL "
        "SELECT format('function %s', oid::regprocedure) FROM pg_proc WHERE pronamespace = 'eventbus'::regnamespace "
        "AND proname = ANY ($1::text[]) AND NOT has_function_privilege(oid, 'EXECUTE WITH GRANT OPTION') "
        "UNION ALL "
        "SELECT format('view %s', oid::regclass) FROM pg_class WHERE relnamespace = 'eventbus'::regnamespace "
        "AND relname = ANY ($2::text[]) AND NOT has_table_privilege(oid, 'SELECT WITH GRANT OPTION')) o (what) "
        "ORDER BY what COLLATE \"C\" LIMIT 1",
        {Argument::of(rights.functions), Argument::of(rights.views), Argument::of(schema)});
    if (SPI_processed == 0) return;
    ereport(ERROR,
            (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
             errmsg("permission denied to call eventbus.%s", get_func_name(fcinfo->flinfo->fn_oid)),
             errdetail("Role \"%s\" has no grant option for %s.", GetUserNameFromId(GetUserId(), false), text_at(0, 1)),
             errhint("The extension's owner and superusers have all of them.")));
}

void give(FunctionCallInfo fcinfo, const char* function, const Rights& rights) {
    Argument role = required_role(fcinfo, function);
    refuse_in_restricted(fcinfo);
    SPI_connect();
    need_grant_options(fcinfo, rights, true);
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
    need_grant_options(fcinfo, rights, false);
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
