// What it is: what all makers of Debezium's envelope share.
// Who calls it: log, for captured changes; decoder, for changes decoded from the WAL.
// Never: looks at rows.
#pragma once

#include "postgres/type_json.hpp"

namespace eventbus {

// The constant beginning of the envelope's "source": who we are (eventbus.source) and the database, then the table;
// each with a comma behind it.
void append_source_names(StringInfo out, const char* name, const char* database);
void append_source_table(StringInfo out, const char* schema, const char* table);

}  // namespace eventbus
