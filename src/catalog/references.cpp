// What it is: the trigger function of brokers and routes: workers look again, and nothing refers to what is gone.
// Who calls it: PostgreSQL, at changes of broker_config and route_config, whoever makes them.
// Never: checks a row that comes in: a restore loads the tables in any order, which foreign keys do not stand.
#include "intake/wake.hpp"
#include "postgres/query.hpp"
#include "source/log/cursors.hpp"

extern "C" {
#include "commands/trigger.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_configuration_changed);
}

namespace eventbus::catalog {

namespace {

[[noreturn]] void refuse_removal(const char* routes) {
    ereport(ERROR, (errcode(ERRCODE_FOREIGN_KEY_VIOLATION), errmsg("brokers that are used by routes cannot be deleted"),
                    errdetail("Routes: %s.", routes),
                    errhint("Drop the routes first, or call eventbus.drop_broker with cascade => true.")));
}

// What is committed by now counts, as it does for foreign keys, whatever the transaction's own snapshot.
void check_no_route(const char* which, const Argument& broker_id) {
    PushActiveSnapshot(GetLatestSnapshot());
    run_query(which, {broker_id}, true);
    PopActiveSnapshot();
    if (SPI_processed > 0 && !is_null_at(0, 1)) refuse_removal(text_at(0, 1));
}

void forget_references(const TriggerData& trigger) {
    bool null = false;
    const int32 id = DatumGetInt32(SPI_getbinval(trigger.tg_trigtuple, trigger.tg_relation->rd_att, 1, &null));
    if (strcmp(RelationGetRelationName(trigger.tg_relation), "route_config") == 0) {
        run_query("DELETE FROM eventbus.dead_letter_store WHERE route_id = $1", {Argument::of(id)});
        log::judge_no_earlier_event();
    } else {
        check_no_route("SELECT string_agg(name, ', ' ORDER BY name) FROM eventbus.route_config WHERE broker_id = $1",
                       Argument::of(id));
    }
}

}  // namespace

}  // namespace eventbus::catalog

using namespace eventbus;

Datum eventbus_configuration_changed(PG_FUNCTION_ARGS) {
    if (!CALLED_AS_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("eventbus.configuration_changed is called by a trigger only")));
    const auto& trigger = *reinterpret_cast<TriggerData*>(fcinfo->context);
    const bool truncates_brokers = TRIGGER_FIRED_BY_TRUNCATE(trigger.tg_event) &&
                                   strcmp(RelationGetRelationName(trigger.tg_relation), "broker_config") == 0;
    if (TRIGGER_FIRED_FOR_ROW(trigger.tg_event) || truncates_brokers) {
        SPI_connect();
        if (truncates_brokers)
            catalog::check_no_route(
                "SELECT string_agg(name, ', ' ORDER BY name) FROM eventbus.route_config WHERE $1 IS NULL",
                Argument::null_of(INT4OID));
        else
            catalog::forget_references(trigger);
        SPI_finish();
    }
    if (!TRIGGER_FIRED_FOR_ROW(trigger.tg_event)) intake::configuration_changed();
    return PointerGetDatum(nullptr);
}
