// What it is: how a capture trigger is told what to publish: its arguments, read and checked.
// Who calls it: the trigger function, and eventbus.capture, which makes the triggers.
// Never: looks at a table's rows.
#pragma once

#include "postgres/prelude.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
}

namespace eventbus::capture {

enum class CapturePayload : unsigned char { change, row, key };

// A list of columns as users write it: "a, b" are these only, "-a, -b" are all but these.
struct ColumnList {
    List* names;  // of char*, as the catalog has them; NIL: every column
    bool except;
};

// CREATE TRIGGER … EXECUTE FUNCTION eventbus.publish_change('topic', 'name=value', …); the names are columns,
// headers, key, payload and unchanged.
struct CaptureArguments {
    const char* topic;
    CapturePayload payload;
    ColumnList columns;
    List* key;            // of char*; NIL: the replica identity or the primary key
    const char* headers;  // a JSON object's text, or nullptr
    bool unchanged;       // publish UPDATEs that change nothing, too
};

// More of a trigger's arguments are nonsense, which nobody has to read.
inline constexpr Size longest_arguments = 4 * 1024 * 1024;

// What pg_trigger.tgargs holds: texts one after the other, each with its zero, which the last one may lack.
List* split_arguments(const bytea* packed);

// Everything is palloc'd. Errors name the argument and what is valid.
CaptureArguments read_capture_arguments(int count, char** arguments);
ColumnList read_column_list(const char* text);
bool is_member(List* names, const char* name);
// The list in the form that read_column_list takes, names quoted where they must be.
char* column_list_text(const ColumnList& columns);

// Checks that the names are columns of the relation; the error lists those there are.
void check_columns(Relation rel, List* names, const char* argument);
// The same for the columns to publish; those that are left out need not be there (any more).
void check_published_columns(Relation rel, const ColumnList& columns);

// The condition of a capture as a trigger's WHEN has it, its rows being OLD and NEW of an operation (TRIGGER_TYPE_…).
// An INSERT has no OLD row and a DELETE no NEW one, and PostgreSQL refuses a WHEN that names it; to us it is a row of
// nulls, as it is to PL/pgSQL.
struct CaptureCondition {
    Node* expression;
    List* rows;  // the range table
};
CaptureCondition read_condition(Relation rel, const char* text, int16 operation);

// The topic of an operation ("insert", "update", "delete", "truncate") on a table: {schema}, {table} and {op} filled
// in. What a topic may not hold, or what would split a name into words, becomes an underscore. Errors on unknown
// placeholders, and where the result is no valid topic.
char* capture_topic(const char* topic, const char* schema, const char* table, const char* operation);

// The current role's name, of which the header pg-user is made; valid until the next call.
const text* publishing_role();

// The trigger functions of captures: eventbus.publish_partitioned() of partitioned tables, whose owners may be given
// it, and eventbus.publish_change() of all others and of triggers made by hand, for which it is a right. They do the
// same.
struct CaptureFunctions {
    Oid change;       // InvalidOid: the extension is not here
    Oid partitioned;  // InvalidOid: nor is it where its objects are those of 0.1
    Oid owner;        // who is the extension's

    [[nodiscard]] bool has(Oid function) const {
        return OidIsValid(function) && (function == change || function == partitioned);
    }
};
CaptureFunctions look_up_capture_functions();
// The same; an error where the extension is not here.
CaptureFunctions capture_functions();

}  // namespace eventbus::capture
