// What it is: whose rights count: the caller's for what they ask for, the extension owner's for its tables.
// Who calls it: SQL functions that write what nobody may write by hand, and triggers that read it.
// Never: leaves the owner's rights to code of a user.
#pragma once

#include "postgres/prelude.hpp"

namespace eventbus {

// Who runs this code, as PostgreSQL has it now: within a SECURITY DEFINER function its owner.
struct Caller {
    Oid role;
    int security;
};

// From here on everything is done with the rights of that owner. Errors end it, as they end whatever was begun.
Caller become(Oid owner, int more_security = 0);
void be_again(const Caller& caller);

// For functions that write, or look twice: errors (25000) in a parallel operation. They are PARALLEL UNSAFE, but
// somebody may call them in a function of theirs that is marked PARALLEL SAFE.
void refuse_in_parallel(FunctionCallInfo fcinfo);

// For a function that changes the configuration: errors (42501) where PostgreSQL runs code of somebody who has not
// asked for it: in index expressions while REINDEX, ANALYZE and autovacuum evaluate them, in the queries of
// materialized views. In parallel operations and in read-only transactions (25006) as well.
void refuse_in_restricted(FunctionCallInfo fcinfo);
// The same for one that changes nothing, but that nobody shall call without having asked for it: read-only transactions
// are good for it.
void refuse_where_nobody_asks(FunctionCallInfo fcinfo);
// become() for a function that changes the configuration.
Caller become_owner(FunctionCallInfo fcinfo);
// With a connection of SPI: whoever forgets to end the one is told of the other.
Caller connect_as_owner(FunctionCallInfo fcinfo);
void finish_as_owner(const Caller& caller);

}  // namespace eventbus
