// What it is: arrays and rows as JSON text, element by element.
// Who calls it: json.cpp.
// Never: see json.hpp.
#pragma once

#include "postgres/type_json.hpp"

namespace eventbus {

void append_json_array(StringInfo out, JsonType* type, Datum value);
void append_json_row(StringInfo out, JsonType* type, Datum value);

}  // namespace eventbus
