// What it is: what the view eventbus.captured shows of a trigger's arguments.
// Who calls it: the view.
// Never: fails because of a trigger that somebody made by hand, or waits for a lock on its table.
#include <initializer_list>

#include "intake/capture.hpp"
#include "intake/publish.hpp"
#include "postgres/attempt.hpp"

extern "C" {
#include "catalog/pg_type_d.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
}

namespace eventbus::intake {

namespace {

void check_names(Oid relation, List* names, const char* argument) {
    ListCell* cell;
    foreach (cell, names)
        if (get_attnum(relation, static_cast<char*>(lfirst(cell))) == InvalidAttrNumber)
            ereport(ERROR, (errmsg("column \"%s\" does not exist", static_cast<char*>(lfirst(cell))),
                            errdetail("It stands in the capture's %s.", argument)));
}

// As the trigger does when it fires.
void check_arguments(Oid relation, List* texts) {
    auto** arguments = static_cast<char**>(palloc(sizeof(char*) * (static_cast<Size>(list_length(texts)) + 1)));
    int count = 0;
    ListCell* cell;
    foreach (cell, texts) arguments[count++] = static_cast<char*>(lfirst(cell));
    CaptureArguments read = read_capture_arguments(count, arguments);
    if (!read.columns.except) check_names(relation, read.columns.names, "columns");
    check_names(relation, read.key, "key");
    const char* schema = get_namespace_name(get_rel_namespace(relation));
    const char* table = get_rel_name(relation);
    if (schema == nullptr || table == nullptr) return;  // dropped just now
    for (const char* operation : {"insert", "update", "delete", "truncate"})
        (void)capture_topic(read.topic, schema, table, operation);
    if (read.headers != nullptr) check_headers(DirectFunctionCall1(jsonb_in, CStringGetDatum(read.headers)));
}

}  // namespace

}  // namespace eventbus::intake

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_trigger_arguments);
EVENTBUS_SQL_FUNCTION(eventbus_trigger_error);
}

using namespace eventbus;
using namespace eventbus::intake;

Datum eventbus_trigger_arguments(PG_FUNCTION_ARGS) {
    List* texts = split_arguments(PG_GETARG_BYTEA_PP(0));
    const Size size = (static_cast<Size>(list_length(texts)) + 1);
    auto* values = static_cast<Datum*>(palloc0(sizeof(Datum) * size));
    auto* nulls = static_cast<bool*>(palloc0(sizeof(bool) * size));
    int count = 0;
    ListCell* cell;
    foreach (cell, texts) {
        const char* text = static_cast<char*>(lfirst(cell));
        nulls[count] = !pg_verifymbstr(text, static_cast<int>(strlen(text)), true);
        if (!nulls[count]) values[count] = CStringGetTextDatum(text);
        ++count;
    }
    if (count == 0) PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));
    int begin = 1;
    PG_RETURN_ARRAYTYPE_P(construct_md_array(values, nulls, 1, &count, &begin, TEXTOID, -1, false, TYPALIGN_INT));
}

Datum eventbus_trigger_error(PG_FUNCTION_ARGS) {
    const Oid relation = PG_GETARG_OID(0);
    List* texts = split_arguments(PG_GETARG_BYTEA_PP(1));
    ListCell* cell;
    foreach (cell, texts)
        if (const char* text = static_cast<char*>(lfirst(cell));
            !pg_verifymbstr(text, static_cast<int>(strlen(text)), true))
            PG_RETURN_TEXT_P(cstring_to_text("an argument is no text in the database's encoding"));
    ErrorData* error = attempt([&] { check_arguments(relation, texts); });
    if (error == nullptr) PG_RETURN_NULL();
    PG_RETURN_TEXT_P(cstring_to_text(error_words(error)));
}
