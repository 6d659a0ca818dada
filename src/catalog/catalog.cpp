// Never: checks what it reads; create_broker and create_route did.
#include "catalog/catalog.hpp"

#include "postgres/home.hpp"
#include "postgres/query.hpp"

namespace eventbus::catalog {

static char* keep(uint64 row, int column, MemoryContext memory) {
    return MemoryContextStrdup(memory, text_at(row, column));
}

static uint32 version_at(uint64 row, int column) {
    return static_cast<uint32>(strtoul(text_at(row, column), nullptr, 10));
}

static int read_ids(const char* query, int32** ids, MemoryContext memory) {
    run_query(query, {}, true);
    auto count = static_cast<int>(SPI_processed);
    *ids = static_cast<int32*>(MemoryContextAlloc(memory, sizeof(int32) * (count + 1)));
    for (int i = 0; i < count; ++i) (*ids)[i] = int4_at(i, 1);
    return count;
}

int brokers_with_routes(BrokerVersion** brokers, MemoryContext memory) {
    run_query(
        "SELECT b.id, b.name, hashtextextended(b.xmin::text || string_agg(format(' %s:%s', r.id, r.xmin), '' "
        "ORDER BY r.id), 0), bool_or(r.source = 'wal'), b.home IS DISTINCT FROM $1 FROM eventbus.broker_config b JOIN "
        "eventbus.route_config r ON "
        "r.broker_id = b.id "
        "GROUP BY b.id, b.name, b.xmin, b.home ORDER BY 1",
        {Argument::of(static_cast<const char*>(home_of(MyDatabaseId)))}, true);
    auto count = static_cast<int>(SPI_processed);
    *brokers = static_cast<BrokerVersion*>(MemoryContextAlloc(memory, sizeof(BrokerVersion) * (count + 1)));
    for (int i = 0; i < count; ++i)
        (*brokers)[i] = {int4_at(i, 1), keep(i, 2, memory), int8_at(i, 3), bool_at(i, 4), bool_at(i, 5)};
    return count;
}

int take_over_upgraded_brokers() {
    const char* home = home_of(MyDatabaseId);
    run_query("SELECT id, home FROM eventbus.broker_config WHERE home IS DISTINCT FROM $1", {Argument::of(home)});
    const auto count = static_cast<int>(SPI_processed);
    auto* ids = static_cast<int32*>(palloc(sizeof(int32) * (count + 1)));
    int taken = 0;
    for (int i = 0; i < count; ++i)
        if (!is_null_at(i, 2) && is_same_but_for_server(text_at(i, 2), MyDatabaseId)) ids[taken++] = int4_at(i, 1);
    for (int i = 0; i < taken; ++i)
        run_query("UPDATE eventbus.broker_config SET home = $2 WHERE id = $1",
                  {Argument::of(ids[i]), Argument::of(home)});
    return taken;
}

int brokers_with_wal_routes(int32** ids, MemoryContext memory) {
    return read_ids("SELECT DISTINCT broker_id FROM eventbus.route_config WHERE source = 'wal'", ids, memory);
}

// Whoever makes a route has a lock on its broker, and what has been committed is looked at once we have one.
bool hold_without_wal_routes(int32 id) {
    bool locked =
        run_query("SELECT FROM eventbus.broker_config WHERE id = $1 FOR UPDATE SKIP LOCKED", {Argument::of(id)}) > 0;
    run_query(
        "SELECT EXISTS (SELECT FROM eventbus.broker_config WHERE id = $1), "
        "EXISTS (SELECT FROM eventbus.route_config WHERE broker_id = $1 AND source = 'wal')",
        {Argument::of(id)});
    return (locked || !bool_at(0, 1)) && !bool_at(0, 2);
}

bool read_broker(int32 id, Broker* broker, MemoryContext memory) {
    run_query("SELECT name, url, options::text, xmin::text FROM eventbus.broker_config WHERE id = $1",
              {Argument::of(id)}, true);
    if (SPI_processed == 0) return false;
    *broker = {id, keep(0, 1, memory), keep(0, 2, memory), keep(0, 3, memory), version_at(0, 4)};
    return true;
}

int read_routes(int32 broker_id, Route** routes, MemoryContext memory) {
    run_query(
        "SELECT id, name, destination, topics, options::text, paused, source, "
        "(SELECT count(*) FROM eventbus.dead_letter_store d WHERE d.route_id = r.id AND d.requeued), xmin::text "
        "FROM eventbus.route_config r WHERE broker_id = $1 ORDER BY id",
        {Argument::of(broker_id)}, true);
    auto count = static_cast<int>(SPI_processed);
    *routes = static_cast<Route*>(MemoryContextAlloc(memory, sizeof(Route) * (count + 1)));
    for (int i = 0; i < count; ++i)
        (*routes)[i] = {int4_at(i, 1), keep(i, 2, memory), keep(i, 3, memory), keep(i, 4, memory), keep(i, 5, memory),
                        bool_at(i, 6), keep(i, 7, memory), int8_at(i, 8),      version_at(i, 9)};
    return count;
}

}  // namespace eventbus::catalog
