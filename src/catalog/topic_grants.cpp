// What it is: allow and disallow, and the trigger that tells every session that the topic grants have changed.
// Who calls it: whoever was granted it, in SQL; the table eventbus.topic_grant.
// Never: checks a publisher; intake does.
#include "catalog/arguments.hpp"
#include "catalog/topic_patterns.hpp"
#include "postgres/query.hpp"
#include "postgres/rights.hpp"
#include "router/route.hpp"

extern "C" {
#include "commands/trigger.h"
#include "utils/inval.h"
}

namespace eventbus::catalog {

namespace {

// The role's patterns, as a text; nullptr where it has none.
char* patterns_of(const Argument& role) {
    run_query("SELECT string_agg(topics, ', ' ORDER BY topics) FROM eventbus.topic_grant WHERE role = $1", {role});
    return text_at(0, 1);
}

const char* name_of(const Argument& role) {
    return GetUserNameFromId(DatumGetObjectId(role.value), false);
}

int hint_of(const char* known) {
    return known != nullptr ? errhint("Its topic grants: %s.", known)
                            : errhint("None of its own restricts it; eventbus.allow would.");
}

// Takes one pattern away, or all where it is empty.
void remove(const Argument& role, std::string_view pattern, const char* known) {
    if (run_query("DELETE FROM eventbus.topic_grant WHERE role = $1 AND $2 IN ('', topics)",
                  {role, Argument::of(pattern)}) > 0)
        return;
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
                    pattern.empty() ? errmsg("role \"%s\" has no topic grants", name_of(role))
                                    : errmsg("role \"%s\" has no topic grant \"%.*s\"", name_of(role),
                                             static_cast<int>(pattern.size()), pattern.data()),
                    hint_of(known)));
}

}  // namespace

}  // namespace eventbus::catalog

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_allow);
EVENTBUS_SQL_FUNCTION(eventbus_disallow);
EVENTBUS_SQL_FUNCTION(eventbus_topic_grants_changed);
}

using namespace eventbus;
using namespace eventbus::catalog;

Datum eventbus_allow(PG_FUNCTION_ARGS) {
    Argument role = required_role(fcinfo, "allow");
    const char* topics = required_text(fcinfo, 1, "allow", "topics");
    refuse_what_is_no_pattern(topics);
    const router::TopicFilter* patterns = read_patterns(topics);
    tell_of_odd_patterns(topics);
    const Caller caller = connect_as_owner(fcinfo);
    for (std::size_t i = 0; i < patterns->size(); ++i)
        run_query("INSERT INTO eventbus.topic_grant (role, topics) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                  {role, Argument::of(patterns->pattern(i))});
    finish_as_owner(caller);
    PG_RETURN_VOID();
}

Datum eventbus_disallow(PG_FUNCTION_ARGS) {
    Argument role = required_role(fcinfo, "disallow");
    char* topics = optional_text(fcinfo, 1);
    const Caller caller = connect_as_owner(fcinfo);
    const char* known = patterns_of(role);
    if (topics == nullptr) {
        remove(role, {}, known);
    } else {
        const router::TopicFilter* patterns = read_patterns(topics);
        for (std::size_t i = 0; i < patterns->size(); ++i) remove(role, patterns->pattern(i), known);
    }
    // Who wanted to take the last topic away gets the opposite.
    if (patterns_of(role) == nullptr)
        ereport(topics == nullptr ? NOTICE : WARNING,
                (errmsg("role \"%s\" has no topic grants left: none of its own restricts it now", name_of(role)),
                 errhint("To keep it from publishing, revoke EXECUTE on the publish functions.")));
    finish_as_owner(caller);
    PG_RETURN_VOID();
}

Datum eventbus_topic_grants_changed(PG_FUNCTION_ARGS) {
    if (!CALLED_AS_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("eventbus.topic_grants_changed is called by a trigger only")));
    CacheInvalidateRelcache(reinterpret_cast<TriggerData*>(fcinfo->context)->tg_relation);
    return PointerGetDatum(nullptr);
}
