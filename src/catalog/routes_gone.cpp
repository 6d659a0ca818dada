#include "catalog/routes_gone.hpp"

#include "postgres/query.hpp"

namespace eventbus::catalog {

namespace {

// A row a route: its name, and what of it goes in words or null.
constexpr const char* what_goes =
    "SELECT name, nullif(concat_ws(' and ', "
    "CASE WHEN source = 'wal' THEN CASE WHEN bytes_waiting > 0 AND (lag IS NULL OR lag > interval '0') "
    "THEN 'what waits for it in the WAL' END "
    "WHEN events_waiting IS NULL THEN 'what waits for it (it cannot be counted now)' "
    "WHEN events_waiting > 0 THEN " EVENTBUS_EVENTS_WAITING
    " || CASE events_waiting WHEN 1 THEN ' that waits' ELSE ' that wait' END END, "
    "CASE WHEN source = 'wal' THEN (SELECT format('%s dead letter%s put back by redeliver', count(*), CASE WHEN "
    "count(*) <> 1 THEN 's' END) FROM eventbus.dead_letter_store d WHERE d.route_id = r.id AND d.requeued "
    "HAVING count(*) > 0) END, "
    "CASE WHEN dead_letters > 0 THEN format('%s dead letter%s', dead_letters, CASE WHEN dead_letters <> 1 THEN 's' "
    "END) END), '') "
    "FROM eventbus.delivery_status() JOIN eventbus.route_config r ON r.id = route_id ";

}  // namespace

void tell_of_route_that_goes(int32 id, const char* name) {
    run_query(psprintf("%s WHERE r.id = $1", what_goes), {Argument::of(id)});
    const char* with_it = SPI_processed > 0 ? text_at(0, 2) : nullptr;
    if (with_it != nullptr) ereport(NOTICE, (errmsg("route \"%s\" is dropped with %s", name, with_it)));
}

void tell_of_routes_that_go(int32 broker_id, const char* broker) {
    run_query(psprintf("%s WHERE r.broker_id = $1 ORDER BY 1", what_goes), {Argument::of(broker_id)});
    for (uint64 i = 0; i < SPI_processed; ++i) {
        const char* with_it = text_at(i, 2);
        if (with_it != nullptr)
            ereport(NOTICE,
                    (errmsg("drop of broker \"%s\" cascades to route \"%s\" with %s", broker, text_at(i, 1), with_it)));
        else
            ereport(NOTICE, (errmsg("drop of broker \"%s\" cascades to route \"%s\"", broker, text_at(i, 1))));
    }
}

}  // namespace eventbus::catalog
