// What it is: SPI without its repetition: run a query, read its columns, within a transaction of one's own or not.
// Who calls it: host rooms that keep their state in tables.
// Never: is used on a hot path.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "postgres/prelude.hpp"

extern "C" {
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
}

namespace eventbus {

// A parameter of a query; text parameters are cast in the query where they mean something else.
struct Argument {
    Oid type;
    Datum value;
    bool null;

    static Argument of(const char* text) {
        return {TEXTOID, text == nullptr ? Datum(0) : CStringGetTextDatum(text), text == nullptr};
    }
    static Argument of(const text* value) { return {TEXTOID, PointerGetDatum(value), value == nullptr}; }
    static Argument of_bytes(const bytea* value) { return {BYTEAOID, PointerGetDatum(value), value == nullptr}; }
    static Argument of(std::string_view view) {
        return {TEXTOID, PointerGetDatum(cstring_to_text_with_len(view.data(), static_cast<int>(view.size()))), false};
    }
    static Argument of(int32 number) { return {INT4OID, Int32GetDatum(number), false}; }
    static Argument of(int64 number) { return {INT8OID, Int64GetDatum(number), false}; }
    static Argument of(bool flag) { return {BOOLOID, BoolGetDatum(flag), false}; }
    // 0 is no time: what may be the year 2000 is no matter for it.
    static Argument of_time(TimestampTz time) { return {TIMESTAMPTZOID, TimestampTzGetDatum(time), time == 0}; }
    static Argument null_of(Oid type) { return {type, Datum(0), true}; }
};

// Runs a query between SPI_connect and SPI_finish; its rows are in SPI_tuptable. Returns how many it touched.
uint64 run_query(const char* sql, std::initializer_list<Argument> params = {}, bool read_only = false);

// A query that is planned once a process.
struct Prepared {
    static constexpr int most = 32;
    const char* sql;
    Oid types[most];
    struct _SPI_plan* plan = nullptr;
};
uint64 run_prepared(Prepared& query, const Argument* params, int count);

// Columns of a row of SPI_tuptable, from 1.
bool is_null_at(uint64 row, int column);
char* text_at(uint64 row, int column);  // palloc'd; nullptr when null
int32 int4_at(uint64 row, int column);  // 0 when null
int64 int8_at(uint64 row, int column);
bool bool_at(uint64 row, int column);
TimestampTz time_at(uint64 row, int column);
Datum datum_at(uint64 row, int column, bool* null);

// The version of the extension in this database; between SPI_connect and SPI_finish. "" where it does not exist.
const char* extension_version();

// A transaction of a worker's own, with an active snapshot; `activity` is what pg_stat_activity shows.
void begin_transaction(const char* activity);
// The same for work on the extension's tables. False, and no transaction, where the extension does not exist (any
// more): one that was made again is another one, whose brokers and routes may have the numbers of those that the
// process knows. Its object is locked first, as DROP EXTENSION does: between the two there is no second order of locks.
bool begin_transaction_on_extension(const char* activity);
std::uint32_t activities_shown();  // how often these two have changed what pg_stat_activity shows
void commit_transaction();

}  // namespace eventbus
