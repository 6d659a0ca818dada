// What it is: what a client of the output plugin asks for: the plugin's options, read and checked.
// Who calls it: the plugin's startup callback; what comes out of it guides everything else.
// Never: looks into the catalog, for there may be no transaction yet.
#pragma once

#include "postgres/prelude.hpp"

extern "C" {
#include "nodes/pg_list.h"
}

namespace eventbus::decoder {

enum class Operation : unsigned char { insert, update, remove, truncate };
inline constexpr int operation_count = 4;

// A pattern of our own options: * and ? as in a shell, backslash escapes; what begins with - is an exception.
struct Pattern {
    const char* schema;  // nullptr in a list of message prefixes
    const char* name;
    bool except;
};

// Text that is written as it is.
struct Piece {
    const char* text;
    int length;
};

// A table of wal2json's options; nullptr is any.
struct SelectedTable {
    const char* schema;
    const char* table;
};

struct Options {
    bool wal2json;  // the format; otherwise debezium
    int version;    // of wal2json's format

    // For both formats
    List* tables;        // of Pattern*
    List* messages;      // of Pattern*
    List* publications;  // of char*
    bool by_publication;
    bool local_only;  // origin = none
    bool skip_empty;
    bool tells_of_publications;  // that did not exist at a place in the WAL; who asks for them does not know otherwise
    bool leaves_out_unreadable;  // what cannot be written, rather than failing at it; see readable.hpp
    bool actions[operation_count];
    List* filter_origins;  // of oids
    List* filter_tables;   // of SelectedTable*
    List* add_tables;      // of SelectedTable*
    bool add_all_tables;
    List* filter_prefixes;  // of char*
    List* add_prefixes;     // of char*

    // debezium
    bool transactions;  // BEGIN and END, too
    bool streaming;
    const char* source;  // the name in "source"; nullptr: eventbus.source
    Piece source_names;  // the constant beginning of "source"; made by the plugin

    // wal2json
    bool include_transaction;
    bool include_xids;
    bool include_timestamp;
    bool include_origin;
    bool include_schemas;
    bool include_types;
    bool include_type_oids;
    bool include_typmod;
    bool include_domain_data_type;
    bool include_column_positions;
    bool include_not_null;
    bool include_default;
    bool include_pk;
    bool include_lsn;
    bool pretty_print;
    bool write_in_chunks;
    bool numbers_as_strings;
    const char* tab;  // what pretty-print puts between things; empty without it
    const char* line;
    const char* space;
};

// Reads a list of DefElem; everything is palloc'd. Errors are wal2json's in its format, and name what is valid in ours.
void read_options(List* given, Options* options);

// Of its tables nobody hears: cursors move because events are delivered; brokers have passwords.
inline constexpr const char* own_schema = "eventbus";
bool wants_table(const Options& options, const char* schema, const char* table);
bool wants_message(const Options& options, const char* prefix);

// Shared with other readers of the WAL: "public.*, shop.order_?, -shop.order_x", or prefixes where `qualified` is
// false. Palloc'd; nullptr where it cannot be read.
bool read_patterns(const char* text, bool qualified, List** patterns);
// Whether the last word is yes: some pattern fits (or there are only exceptions), and no exception does.
bool fits(List* patterns, const char* schema, const char* name);

}  // namespace eventbus::decoder
