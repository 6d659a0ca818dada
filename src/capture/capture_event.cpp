// What it is: what events of changes and of DDL share: the key made of texts, and the role.
// Who calls it: the trigger functions.
// Never: gives its caller a datum that something else frees.
#include "capture/capture_state.hpp"
#include "intake/publish.hpp"
#include "postgres/encoding.hpp"

extern "C" {
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "mb/pg_wchar.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/syscache.h"
}

namespace eventbus::capture {

const text* publishing_role() {
    static union {
        char bytes[VARHDRSZ + NAMEDATALEN];
        int32 alignment;
    } name;
    static uint64 transaction = 0;  // until the next one, no name changes
    static Oid role = InvalidOid;
    uint64 current = U64FromFullTransactionId(GetTopFullTransactionId());
    if (transaction != current || role != GetUserId()) {
        const char* found = readable_name(GetUserNameFromId(GetUserId(), false));
        SET_VARSIZE(name.bytes, VARHDRSZ + strlen(found));
        memcpy(name.bytes + VARHDRSZ, found, strlen(found));
        transaction = current;
        role = GetUserId();
    }
    return reinterpret_cast<text*>(name.bytes);
}

static Oid function_in(Oid schema, const char* name, Oid* owner) {
    HeapTuple tuple = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum(name),
                                      PointerGetDatum(buildoidvector(nullptr, 0)), ObjectIdGetDatum(schema));
    if (!HeapTupleIsValid(tuple)) return InvalidOid;
    auto* form = reinterpret_cast<Form_pg_proc>(GETSTRUCT(tuple));
    const Oid function = form->oid;
    *owner = form->proowner;
    ReleaseSysCache(tuple);
    return function;
}

CaptureFunctions look_up_capture_functions() {
    // Looked up past the rights of the one who alters a table, or fires a trigger: they may have none on our schema.
    const Oid schema = get_namespace_oid("eventbus", true);
    CaptureFunctions functions = {};
    if (!OidIsValid(schema)) return functions;
    functions.partitioned = function_in(schema, "publish_partitioned", &functions.owner);
    functions.change = function_in(schema, "publish_change", &functions.owner);
    return functions;
}

CaptureFunctions capture_functions() {
    const CaptureFunctions functions = look_up_capture_functions();
    if (!OidIsValid(functions.change)) elog(ERROR, "function eventbus.publish_change() does not exist");
    return functions;
}

}  // namespace eventbus::capture
