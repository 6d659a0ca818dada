// What it is: arrays and rows as JSON text, element by element.
// Who calls it: json.cpp.
// Never: believes a value about its own type: what it is made of is looked up.
#pragma once

#include "postgres/type_json.hpp"

namespace eventbus {

void append_json_array(StringInfo out, JsonType* type, Datum value);
void append_json_row(StringInfo out, JsonType* type, Datum value);

}  // namespace eventbus
