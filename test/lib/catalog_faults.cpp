// What it is: errors at our look-ups in the catalog, as of a transaction that is rolled back while it is decoded.
// Who calls it: the linker's --wrap, in the library that `make faults` makes; the file faults.at says at which look-up.
// Never: is part of a library that is installed.
#include "postgres/prelude.hpp"

extern "C" {
#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_publication.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
}

namespace {

// The file stands in the data directory. Its first number is the look-up, from 1 on; whatever follows tells this time
// from the last one. Only where PostgreSQL would raise the same error, and swallow it, is one raised.
void look_up(const char* what) {
    static char last[64];
    static int count;
    if (!TransactionIdIsValid(CheckXidAlive)) return;
    char text[sizeof last] = "";
    FILE* file = fopen("faults.at", "r");
    if (file == nullptr) return;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    if (strcmp(text, last) != 0) count = 0;
    strlcpy(last, text, sizeof last);
    if (++count != atoi(text)) return;
    ereport(WARNING, (errmsg("catalog fault %d: %s", count, what)));
    ereport(ERROR, (errcode(ERRCODE_TRANSACTION_ROLLBACK), errmsg("transaction aborted at %s", what)));
}

}  // namespace

#define FAULTY(name, result, parameters, arguments) \
    extern "C" result __real_##name parameters;     \
    extern "C" result __wrap_##name parameters {    \
        look_up(#name);                             \
        return __real_##name arguments;             \
    }

FAULTY(ExecPrepareExpr, ExprState*, (Expr * node, EState* state), (node, state))
FAULTY(FunctionCall1Coll, Datum, (FmgrInfo * function, Oid collation, Datum value), (function, collation, value))
FAULTY(GetPublicationByName, Publication*, (const char* name, bool missing), (name, missing))
FAULTY(GetRelationPublications, List*, (Oid relation), (relation))
FAULTY(GetSchemaPublications, List*, (Oid schema), (schema))
FAULTY(GetTopMostAncestorInPublication, Oid, (Oid publication, List* ancestors, int* level),
       (publication, ancestors, level))
FAULTY(OutputFunctionCall, char*, (FmgrInfo * function, Datum value), (function, value))
FAULTY(RelationGetIndexList, List*, (Relation relation), (relation))
FAULTY(RelationIdGetRelation, Relation, (Oid relation), (relation))
FAULTY(SearchSysCache1, HeapTuple, (int cache, Datum key), (cache, key))
FAULTY(SearchSysCache2, HeapTuple, (int cache, Datum one, Datum two), (cache, one, two))
FAULTY(SearchSysCacheExists, bool, (int cache, Datum one, Datum two, Datum three, Datum four),
       (cache, one, two, three, four))
FAULTY(fmgr_info, void, (Oid function, FmgrInfo* info), (function, info))
FAULTY(fmgr_info_cxt, void, (Oid function, FmgrInfo* info, MemoryContext memory), (function, info, memory))
FAULTY(format_type_with_typemod, char*, (Oid type, int32 modifier), (type, modifier))
FAULTY(getBaseType, Oid, (Oid type), (type))
FAULTY(getTypeOutputInfo, void, (Oid type, Oid* output, bool* varlena), (type, output, varlena))
FAULTY(get_attnum, AttrNumber, (Oid relation, const char* name), (relation, name))
FAULTY(get_element_type, Oid, (Oid type), (type))
FAULTY(get_namespace_name, char*, (Oid schema), (schema))
FAULTY(get_namespace_oid, Oid, (const char* name, bool missing), (name, missing))
FAULTY(get_partition_ancestors, List*, (Oid relation), (relation))
FAULTY(get_rel_name, char*, (Oid relation), (relation))
FAULTY(get_rel_namespace, Oid, (Oid relation), (relation))
FAULTY(systable_getnext, HeapTuple, (SysScanDesc scan), (scan))
FAULTY(table_open, Relation, (Oid relation, LOCKMODE mode), (relation, mode))
FAULTY(type_is_rowtype, bool, (Oid type), (type))
