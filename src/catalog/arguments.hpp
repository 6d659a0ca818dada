// What it is: reading and checking the arguments of the SQL functions.
// Who calls it: the catalog room's functions.
// Never: lets a null or an over-long name through.
#pragma once

#include <string>

#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "router/route.hpp"

extern "C" {
#include "utils/jsonb.h"
}

namespace eventbus::catalog {

// Where the modules are.
inline std::string module_directory() {
    return pkglib_path;
}

[[noreturn]] void refuse_null(const char* function, const char* argument);

// A text argument that must not be null.
char* required_text(FunctionCallInfo fcinfo, int index, const char* function, const char* argument);
// The name of a broker or route to be: 1 to 63 bytes, no control characters.
char* required_name(FunctionCallInfo fcinfo, int index, const char* function, const char* noun);
// nullptr when null.
char* optional_text(FunctionCallInfo fcinfo, int index);
// The text of a jsonb argument that must be an object; `fallback` when null. The example is for the hint.
char* object_text(FunctionCallInfo fcinfo, int index, const char* fallback, const char* example);
// The patterns, checked; freed with the current memory context.
const router::TopicFilter* read_patterns(const char* topics);
// The role of the first argument, which exists.
Argument required_role(FunctionCallInfo fcinfo, const char* function);

}  // namespace eventbus::catalog
