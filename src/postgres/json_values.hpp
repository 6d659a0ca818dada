// What it is: see json_values.cpp.
// Who calls it: json.cpp.
// Never: see json_values.cpp.
#pragma once

#include "postgres/type_json.hpp"

extern "C" {
#include "utils/jsonb.h"
#include "utils/timestamp.h"
}

namespace eventbus {

// A timestamp, or a timestamptz in the session's zone, as a JSON string; false, and nothing appended, where it is not
// plain: infinite, before the year 1, after 9999, or in a zone that is not whole minutes from UTC.
bool append_json_timestamp(StringInfo out, Timestamp time, bool with_zone);

// A numeric; false, and nothing appended, where it is huge or special.
bool append_json_numeric(StringInfo out, Datum value);

// A jsonb as its own output has it.
void append_jsonb(StringInfo out, Datum value);

}  // namespace eventbus
