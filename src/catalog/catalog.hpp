// What it is: brokers and routes as the workers read them.
// Who calls it: the keeper (which brokers need a sender), the sender (its broker and routes).
// Never: hands a password to anything but the driver.
#pragma once

#include "postgres/prelude.hpp"

namespace eventbus::catalog {

// `version` is another one after each change of the row, also where an operator has said again what stood there before
// (resume_route of a held route): the transaction that wrote it.
struct Broker {
    int32 id;
    char* name;
    char* url;
    char* options;  // JSON text
    uint32 version;
};

struct Route {
    int32 id;
    char* name;
    char* destination;
    char* topics;
    char* options;  // JSON text
    bool paused;
    char* source;                // "log" or "wal"
    int64 dead_letters_to_send;  // requeued ones
    uint32 version;
};

// These run between SPI_connect and SPI_finish, and allocate in `memory`.
// Brokers that have routes, and a version of all of it.
struct BrokerVersion {
    int32 id;
    char* name;
    int64 version;
    bool reads_wal;
    bool is_foreign;  // it has come here by a dump, or with a copy of its database
};
int brokers_with_routes(BrokerVersion** brokers, MemoryContext memory);
// Those that pg_upgrade has brought are at home here. Returns how many they were.
int take_over_upgraded_brokers();
// Of those, brokers that have routes from the WAL.
int brokers_with_wal_routes(int32** ids, MemoryContext memory);
// Keeps the broker from getting a route from the WAL until the transaction ends. False where it has one by now, or one
// is being made.
bool hold_without_wal_routes(int32 id);
bool read_broker(int32 id, Broker* broker, MemoryContext memory);
int read_routes(int32 broker_id, Route** routes, MemoryContext memory);

}  // namespace eventbus::catalog
