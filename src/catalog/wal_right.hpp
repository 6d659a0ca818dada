// What it is: the right to read the WAL, which a route from there wants of whoever makes, leads elsewhere or ends it.
// Who calls it: the catalog room's functions.
// Never: asks anybody but the caller: the functions work as the extension's owner.
#pragma once

#include "postgres/rights.hpp"

extern "C" {
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
}

namespace eventbus::catalog {

// Errors (42501) without the attribute REPLICATION. route: what wants it, where it is there already.
inline void need_wal_right(const Caller& caller, const char* route = nullptr) {
    if (superuser_arg(caller.role) || has_rolreplication(caller.role)) return;
    ereport(ERROR,
            (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("permission denied to use the WAL as a source"),
             route != nullptr ? errdetail("Route \"%s\" is from the WAL: it takes changes of every table, whoever "
                                          "may read it.",
                                          route)
                              : errdetail("A route from the WAL takes changes of every table, whoever may read "
                                          "it."),
             errhint("ALTER ROLE %s REPLICATION gives the right.",
                     quote_identifier(GetUserNameFromId(caller.role, false)))));
}

}  // namespace eventbus::catalog
