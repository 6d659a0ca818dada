// What it is: reading and checking what capture triggers are told.
// Who calls it: capture, captured, the trigger function, and whoever renames a column.
// Never: takes an argument that it does not know for one that it does.
#include "capture/capture.hpp"
#include "intake/characters.hpp"
#include "intake/publish.hpp"
#include "postgres/rows.hpp"

extern "C" {
#include "access/genam.h"
#include "catalog/pg_class.h"
#include "lib/stringinfo.h"
#include "parser/scansup.h"
#include "utils/relcache.h"
}

namespace eventbus::capture {

namespace {

[[noreturn]] void bad_columns(const char* text, const char* detail) {
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid list of columns: \"%s\"", text),
                    errdetail("%s", detail),
                    errhint("Write \"a, b\" for these columns only, or \"-a, -b\" for all but these.")));
    pg_unreachable();
}

const char* skip_spaces(const char* at) {
    while (scanner_isspace(*at)) ++at;
    return at;
}

// One name, quoted or not, as the catalog would have it; *at moves behind it.
char* read_name(const char** at, const char* whole) {
    StringInfoData name;
    initStringInfo(&name);
    if (**at == '"') {
        for (++*at;; ++*at) {
            if (**at == '\0') bad_columns(whole, "A quoted name does not end.");
            if (**at == '"' && *++*at != '"') break;
            appendStringInfoChar(&name, **at);
        }
    } else {
        const char* begin = *at;
        while (**at != '\0' && **at != ',' && !scanner_isspace(**at)) ++*at;
        appendStringInfoString(&name, downcase_identifier(begin, static_cast<int>(*at - begin), false, false));
    }
    if (name.len == 0) bad_columns(whole, "A name is missing.");
    truncate_identifier(name.data, name.len, false);
    return name.data;
}

CapturePayload read_payload(const char* value) {
    if (strcmp(value, "change") == 0) return CapturePayload::change;
    if (strcmp(value, "row") == 0) return CapturePayload::row;
    if (strcmp(value, "key") == 0) return CapturePayload::key;
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown payload \"%s\"", value),
                    errhint("Known are change (the row before and after, as Debezium has it), row and key.")));
    pg_unreachable();
}

bool read_flag(const char* name, const char* value) {
    bool flag;
    if (!parse_bool(value, &flag))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("invalid value for \"%s\": \"%s\"", name, value), errhint("It is true or false.")));
    return flag;
}

}  // namespace

List* split_arguments(const bytea* packed) {
    List* texts = NIL;
    const char* at = VARDATA_ANY(packed);
    const char* end = at + VARSIZE_ANY_EXHDR(packed);
    while (at < end) {
        const Size length = strnlen(at, static_cast<Size>(end - at));
        texts = lappend(texts, pnstrdup(at, length));
        at += length + 1;
    }
    return texts;
}

ColumnList read_column_list(const char* text) {
    ColumnList list = {NIL, false};
    const char* at = skip_spaces(text);
    for (;;) {
        bool except = *at == '-';
        if (except) at = skip_spaces(at + 1);
        if (list.names != NIL && except != list.except)
            bad_columns(text, "Columns to take and columns to leave out cannot be mixed.");
        list.except = except;
        list.names = lappend(list.names, read_name(&at, text));
        at = skip_spaces(at);
        if (*at == '\0') return list;
        if (*at != ',') bad_columns(text, "Names are separated by commas.");
        at = skip_spaces(at + 1);
    }
}

bool is_member(List* names, const char* name) {
    ListCell* cell;
    foreach (cell, names)
        if (strcmp(static_cast<char*>(lfirst(cell)), name) == 0) return true;
    return false;
}

char* column_list_text(const ColumnList& columns) {
    StringInfoData text;
    initStringInfo(&text);
    ListCell* cell;
    foreach (cell, columns.names) {
        if (text.len > 0) appendStringInfoString(&text, ", ");
        if (columns.except) appendStringInfoChar(&text, '-');
        appendStringInfoString(&text, quote_identifier(static_cast<char*>(lfirst(cell))));
    }
    return text.data;
}

CaptureArguments read_capture_arguments(int count, char** arguments) {
    CaptureArguments read = {};
    if (count == 0)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("eventbus.publish_change needs a topic as its first argument"),
                        errhint("For example EXECUTE FUNCTION eventbus.publish_change('shop.order.{op}').")));
    Size together = 0;
    for (int i = 0; i < count; ++i) together += strlen(arguments[i]) + 1;
    if (together > longest_arguments)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("the arguments of eventbus.publish_change are longer than 4 MB"),
                        errdetail("They have %zu bytes.", together),
                        errhint("Topic, columns, key and headers of an event want much less.")));
    read.topic = arguments[0];
    for (int i = 1; i < count; ++i) {
        const char* equals = strchr(arguments[i], '=');
        char* name = equals == nullptr ? arguments[i] : pnstrdup(arguments[i], equals - arguments[i]);
        const char* value = equals == nullptr ? nullptr : equals + 1;
        auto is = [&](const char* known) { return value != nullptr && strcmp(name, known) == 0; };
        if (is("columns")) {
            read.columns = read_column_list(value);
        } else if (is("headers")) {
            read.headers = value;
        } else if (is("key")) {
            ColumnList key = read_column_list(value);
            if (key.except) bad_columns(value, "A key is made of the columns that are named.");
            read.key = key.names;
        } else if (is("payload")) {
            read.payload = read_payload(value);
        } else if (is("unchanged")) {
            read.unchanged = read_flag(name, value);
        } else {
            ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                            errmsg("unknown argument \"%s\" of eventbus.publish_change", name),
                            errhint("After the topic come texts name=value; known names are columns, headers, key, "
                                    "payload, unchanged.")));
        }
    }
    return read;
}

void check_columns(Relation rel, List* names, const char* argument) {
    TupleDesc row = RelationGetDescr(rel);
    ListCell* cell;
    foreach (cell, names) {
        const char* name = static_cast<char*>(lfirst(cell));
        StringInfoData known;
        initStringInfo(&known);
        bool found = false;
        for (int i = 0; i < row->natts; ++i) {
            Form_pg_attribute column = TupleDescAttr(row, i);
            if (column->attisdropped) continue;
            found = found || strcmp(NameStr(column->attname), name) == 0;
            appendStringInfo(&known, "%s%s", known.len > 0 ? ", " : "", NameStr(column->attname));
        }
        if (!found)
            ereport(
                ERROR,
                (errcode(ERRCODE_UNDEFINED_COLUMN),
                 errmsg("column \"%s\" of relation \"%s\" does not exist", name, RelationGetRelationName(rel)),
                 errdetail("It stands in the capture's %s.", argument), errhint("Its columns are: %s.", known.data)));
    }
}

void check_published_columns(Relation rel, const ColumnList& columns) {
    if (!columns.except) check_columns(rel, columns.names, "columns");
}

char* capture_topic(const char* topic, const char* schema, const char* table, const char* operation) {
    StringInfoData made;
    initStringInfo(&made);
    for (const char* at = topic; *at != '\0'; ++at) {
        if (*at != '{') {
            appendStringInfoChar(&made, *at);
            continue;
        }
        struct Placeholder {
            std::string_view name;
            const char* value;
        };
        bool found = false;
        for (const Placeholder& known :
             {Placeholder{"{schema}", schema}, Placeholder{"{table}", table}, Placeholder{"{op}", operation}}) {
            if (!std::string_view(at).starts_with(known.name)) continue;
            append_topic_word(&made, known.value);
            at += known.name.size() - 1;
            found = true;
            break;
        }
        if (!found)
            ereport(ERROR,
                    (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown placeholder in topic \"%s\"", topic),
                     errhint("Known are {schema}, {table} and {op}.")));
    }
    std::string_view whole(made.data, static_cast<Size>(made.len));
    if (Size good = convertible(whole); good != whole.size())
        refuse_character(
            psprintf("topic of table \"%s\".\"%s\" holds a character that cannot be delivered", schema, table), whole,
            good, "Rename the table, or capture it with another topic.");
    intake::check_topic(whole);
    return made.data;
}

}  // namespace eventbus::capture
