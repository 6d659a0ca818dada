// What it is: whether the extension of this database is of the library's version.
// Who calls it: what reads tables of the extension that an older version has otherwise.
// Never: decides what an older one may be used for.
#pragma once

#include "postgres/prelude.hpp"

namespace eventbus {

// The library may be newer than the extension: after a restart, and before ALTER EXTENSION. Then what reads its tables
// would not find what it looks for. Between SPI_connect and SPI_finish.
bool is_our_version();
const char* version_words();
inline constexpr const char* version_hint = "Run ALTER EXTENSION pg_eventbus UPDATE.";
// Raises an error (55000, object_not_in_prerequisite_state) where it is not: "pg_eventbus cannot ... before its
// update".
void need_our_version(const char* to_do);

}  // namespace eventbus
