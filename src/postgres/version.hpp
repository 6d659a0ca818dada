// What it is: whether the extension of this database is of the library's version.
// Who calls it: what reads tables of the extension that an older version has otherwise.
// Never: decides what an older one may be used for.
#pragma once

#include "postgres/prelude.hpp"

namespace eventbus {

// The library may be newer than the extension: after a restart, and before ALTER EXTENSION. Or older, where the server
// continued while its files were replaced. Then what reads its tables would not find what it looks for. These are
// called between SPI_connect and SPI_finish.
bool is_our_version();
const char* version_words();
const char* version_hint();
// Whether a version of the extension (numbers with dots) is of a later release than the library.
bool is_newer_than_library(const char* version);
// Raises an error (55000, object_not_in_prerequisite_state) where it is not: "pg_eventbus cannot ... before its
// update".
void need_our_version(const char* to_do);

}  // namespace eventbus
