// Who calls it: host rooms.
// Never: swallows an error.
#include "postgres/query.hpp"

extern "C" {
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "pgstat.h"
#include "utils/backend_status.h"
}

namespace eventbus {

uint64 run_query(const char* sql, std::initializer_list<Argument> params, bool read_only) {
    constexpr int most = 32;
    Oid types[most] = {};
    Datum values[most] = {};
    char nulls[most] = {};
    int count = 0;
    for (const Argument& param : params) {
        if (count == most) elog(ERROR, "too many parameters");
        types[count] = param.type;
        values[count] = param.value;
        nulls[count] = param.null ? 'n' : ' ';
        ++count;
    }
    int result = SPI_execute_with_args(sql, count, types, values, nulls, read_only, 0);
    if (result < 0) elog(ERROR, "query failed: %s", SPI_result_code_string(result));
    return SPI_processed;
}

uint64 run_prepared(Prepared& query, const Argument* params, int count) {
    Datum values[Prepared::most];
    char nulls[Prepared::most];
    for (int i = 0; i < count; ++i) {
        values[i] = params[i].value;
        nulls[i] = params[i].null ? 'n' : ' ';
    }
    if (query.plan == nullptr) {
        SPIPlanPtr plan = SPI_prepare(query.sql, count, query.types);
        if (plan == nullptr) elog(ERROR, "query cannot be prepared: %s", SPI_result_code_string(SPI_result));
        SPI_keepplan(plan);
        query.plan = plan;
    }
    int result = SPI_execute_plan(query.plan, values, nulls, false, 0);
    if (result < 0) elog(ERROR, "query failed: %s", SPI_result_code_string(result));
    return SPI_processed;
}

Datum datum_at(uint64 row, int column, bool* null) {
    return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, null);
}

bool is_null_at(uint64 row, int column) {
    bool null;
    datum_at(row, column, &null);
    return null;
}

char* text_at(uint64 row, int column) {
    return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

int32 int4_at(uint64 row, int column) {
    bool null;
    Datum value = datum_at(row, column, &null);
    return null ? 0 : DatumGetInt32(value);
}

int64 int8_at(uint64 row, int column) {
    bool null;
    Datum value = datum_at(row, column, &null);
    return null ? 0 : DatumGetInt64(value);
}

bool bool_at(uint64 row, int column) {
    bool null;
    Datum value = datum_at(row, column, &null);
    return !null && DatumGetBool(value);
}

TimestampTz time_at(uint64 row, int column) {
    bool null;
    Datum value = datum_at(row, column, &null);
    return null ? 0 : DatumGetTimestampTz(value);
}

const char* extension_version() {
    run_query("SELECT extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_eventbus'", {},
              true);
    return SPI_processed == 1 ? text_at(0, 1) : "";
}

static std::uint32_t activities = 0;

std::uint32_t activities_shown() {
    return activities;
}

void begin_transaction(const char* activity) {
    SetCurrentStatementStartTimestamp();
    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    if (activity == nullptr) return;
    pgstat_report_activity(STATE_RUNNING, activity);
    ++activities;
}

bool begin_transaction_on_extension(const char* activity) {
    static Oid ours = InvalidOid;
    begin_transaction(activity);
    Oid extension = get_extension_oid("pg_eventbus", true);
    if (OidIsValid(extension) && (ours == extension || !OidIsValid(ours))) {
        LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
        if (get_extension_oid("pg_eventbus", true) == extension) {
            ours = extension;
            return true;
        }
    }
    commit_transaction();
    return false;
}

void commit_transaction() {
    PopActiveSnapshot();
    CommitTransactionCommand();
    pgstat_report_stat(false);
}

}  // namespace eventbus
