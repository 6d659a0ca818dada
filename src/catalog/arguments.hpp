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
// What alter_... makes of a row's options: those of `changes` (nullptr: there are none) on top of them, without those
// that are null there; or, with `replace`, `changes` alone. `check_name` is asked for names that are null and are not
// there; it raises an error where there is no such option. Between SPI_connect and SPI_finish.
using CheckName = void (*)(std::string_view name, const char* url);
char* changed_options(const char* current, const char* changes, bool replace, CheckName check_name, const char* url);
// The function's argument `replace`, which wants options beside it.
bool wants_replacement(FunctionCallInfo fcinfo, int index, const char* options);
// The patterns, checked; freed with the current memory context.
const router::TopicFilter* read_patterns(const char* topics);
// The role of the first argument, which exists.
Argument required_role(FunctionCallInfo fcinfo, const char* function);

}  // namespace eventbus::catalog
