#include "postgres/rights.hpp"

#include "postgres/compat.hpp"

extern "C" {
#include "access/parallel.h"
#include "catalog/pg_proc.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
}

namespace eventbus {

Caller become(Oid owner, int more_security) {
    Caller caller;
    GetUserIdAndSecContext(&caller.role, &caller.security);
    SetUserIdAndSecContext(owner, caller.security | SECURITY_LOCAL_USERID_CHANGE | more_security);
    return caller;
}

void be_again(const Caller& caller) {
    SetUserIdAndSecContext(caller.role, caller.security);
}

static const char* name_of(FunctionCallInfo fcinfo) {
    return psprintf("eventbus.%s", get_func_name(fcinfo->flinfo->fn_oid));
}

void refuse_in_parallel(FunctionCallInfo fcinfo) {
    if (IsInParallelMode()) PreventCommandIfParallelMode(name_of(fcinfo));
}

void refuse_in_restricted(FunctionCallInfo fcinfo) {
    if (XactReadOnly) PreventCommandIfReadOnly(name_of(fcinfo));
    refuse_where_nobody_asks(fcinfo);
}

void refuse_where_nobody_asks(FunctionCallInfo fcinfo) {
    refuse_in_parallel(fcinfo);
    if (!InSecurityRestrictedOperation() && !compat::is_autovacuum()) return;
    ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                    errmsg("cannot call eventbus.%s within security-restricted operation",
                           get_func_name(fcinfo->flinfo->fn_oid)),
                    errdetail("An index expression or the query of a materialized view calls it."),
                    errhint("Call it in a session of your own.")));
}

Caller become_owner(FunctionCallInfo fcinfo) {
    refuse_in_restricted(fcinfo);
    const Oid function = fcinfo->flinfo->fn_oid;
    HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for function %u", function);
    auto* form = reinterpret_cast<Form_pg_proc>(GETSTRUCT(tuple));
    const Oid owner = form->proowner;
    const bool hides_caller = form->prosecdef;
    ReleaseSysCache(tuple);
    if (hides_caller)  // 0.1's functions, or somebody's ALTER FUNCTION: whoever called would have the owner's rights
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("eventbus.%s cannot tell who calls it", get_func_name(function)),
                        errdetail("It is SECURITY DEFINER."), errhint("ALTER EXTENSION pg_eventbus UPDATE fixes it.")));
    return become(owner);
}

Caller connect_as_owner(FunctionCallInfo fcinfo) {
    const Caller caller = become_owner(fcinfo);
    SPI_connect();
    return caller;
}

void finish_as_owner(const Caller& caller) {
    SPI_finish();
    be_again(caller);
}

}  // namespace eventbus
