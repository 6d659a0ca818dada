#include "postgres/envelope.hpp"

namespace eventbus {

namespace {

void append_text_field(StringInfo out, const char* field, const char* value) {
    appendStringInfo(out, "\"%s\":", field);
    append_json_string(out, value);
    put(out, ',');
}

}  // namespace

void append_source_names(StringInfo out, const char* name, const char* database) {
    append_text_field(out, "version", EVENTBUS_VERSION);
    append_text_field(out, "connector", "postgresql");
    append_text_field(out, "name", name);
    append_text_field(out, "db", database);
}

void append_source_table(StringInfo out, const char* schema, const char* table) {
    append_text_field(out, "schema", schema);
    append_text_field(out, "table", table);
}

}  // namespace eventbus
