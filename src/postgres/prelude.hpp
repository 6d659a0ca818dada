// What it is: the one door through which PostgreSQL's headers enter C++.
// Who calls it: every file of a host room includes it first.
// Never: is included by a guest room (core, router, delivery, broker).
#pragma once

#ifdef EVENTBUS_GUEST
#error "a guest room must not see PostgreSQL"
#endif

// PostgreSQL 15 leaves it empty, and we hide what is not declared with it.
#define PGDLLEXPORT __attribute__((visibility("default")))

extern "C" {
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "common/int.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
}

// PostgreSQL's printf and friends are macros; the C++ library must not see them.
#undef snprintf
#undef vsnprintf
#undef sprintf
#undef vsprintf
#undef printf
#undef fprintf
#undef strerror
#undef strerror_r
#undef gettext
#undef ngettext
#undef dgettext
#undef dngettext
#undef bind

// Declares a function that SQL can call; inside extern "C".
#define EVENTBUS_SQL_FUNCTION(name)           \
    PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
    PG_FUNCTION_INFO_V1(name)

namespace eventbus {

// Microseconds between PostgreSQL's epoch (2000-01-01) and Unix's.
inline constexpr int64 unix_epoch_offset_us = INT64CONST(946684800000000);

// Anybody can say a time that lies beyond, infinity for example: it becomes the last one there is, and infinity again.
inline int64 to_unix_us(TimestampTz t) {
    int64 us;
    return pg_add_s64_overflow(t, unix_epoch_offset_us, &us) ? PG_INT64_MAX : us;
}
inline TimestampTz from_unix_us(int64 us) {
    TimestampTz t;
    if (us == PG_INT64_MAX) return DT_NOEND;
    return pg_sub_s64_overflow(us, unix_epoch_offset_us, &t) ? DT_NOBEGIN : t;
}

}  // namespace eventbus
