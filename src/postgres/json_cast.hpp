// What it is: casts to json that somebody has made for a type of their own, called as `value::json` calls them.
// Who calls it: json.cpp.
// Never: calls one in another language than C where decoding asks.
#pragma once

#include "postgres/type_json.hpp"

namespace eventbus {

// False where there is none that may be called.
bool look_up_json_cast(JsonType* type);

// A cast's NULL is JSON's.
void append_json_cast(StringInfo out, JsonType* type, Datum value);

}  // namespace eventbus
