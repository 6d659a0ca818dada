#include "health/table_locks.hpp"

#include "postgres/query.hpp"
#include "postgres/steady.hpp"

extern "C" {
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
}

namespace eventbus::health {

static bool is_free(Oid table) {
    constexpr long patience_ms = 1000;
    constexpr long again_us = 10000;
    for (const SteadyTime since = steady_now(); !ConditionalLockRelationOid(table, AccessShareLock);) {
        if (ms_have_passed(since, steady_now(), patience_ms)) return false;
        CHECK_FOR_INTERRUPTS();
        pg_usleep(again_us);
    }
    return true;
}

const char* locked_table(std::initializer_list<const char*> tables) {
    const Oid schema = get_namespace_oid("eventbus", false);
    for (const char* name : tables) {
        const Oid table = get_relname_relid(name, schema);
        if (!OidIsValid(table) || is_free(table)) continue;
        // Who waits for it exclusively stands before us, too; theirs is not the one to be ended first.
        run_query(
            "SELECT coalesce('process ' || pid, 'a prepared transaction') FROM pg_locks WHERE relation = $1 "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND (granted OR mode = 'AccessExclusiveLock') "
            "ORDER BY granted AND mode = 'AccessExclusiveLock' DESC, granted DESC, pid LIMIT 1",
            {Argument{OIDOID, ObjectIdGetDatum(table), false}}, true);
        return psprintf("table eventbus.%s is locked by %s", name, SPI_processed > 0 ? text_at(0, 1) : "somebody");
    }
    return nullptr;
}

}  // namespace eventbus::health
