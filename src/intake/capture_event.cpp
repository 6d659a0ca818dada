// What it is: what events of changes and of DDL share: the key made of texts, and the role.
// Who calls it: the trigger functions.
// Never: see capture.hpp.
#include "intake/capture_state.hpp"
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

namespace eventbus::intake {

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

Oid publish_change_function(Oid* owner) {
    // Looked up past the rights of the one who alters a table, or fires a trigger: he may have none on our schema.
    Oid schema = get_namespace_oid("eventbus", owner == nullptr);
    HeapTuple tuple = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum("publish_change"),
                                      PointerGetDatum(buildoidvector(nullptr, 0)), ObjectIdGetDatum(schema));
    if (!HeapTupleIsValid(tuple)) {
        if (owner == nullptr) return InvalidOid;
        elog(ERROR, "function eventbus.publish_change() does not exist");
    }
    auto* form = reinterpret_cast<Form_pg_proc>(GETSTRUCT(tuple));
    Oid function = form->oid;
    if (owner != nullptr) *owner = form->proowner;
    ReleaseSysCache(tuple);
    return function;
}

}  // namespace eventbus::intake
