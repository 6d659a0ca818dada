#include "postgres/json_cast.hpp"

extern "C" {
#include "access/transam.h"
#include "catalog/pg_cast.h"
#include "catalog/pg_language_d.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
}

namespace eventbus {

namespace {

Oid cast_function(Oid type) {
    HeapTuple cast = SearchSysCache2(CASTSOURCETARGET, ObjectIdGetDatum(type), ObjectIdGetDatum(JSONOID));
    if (!HeapTupleIsValid(cast)) return InvalidOid;
    auto* form = reinterpret_cast<Form_pg_cast>(GETSTRUCT(cast));
    Oid function = form->castmethod == COERCION_METHOD_FUNCTION ? form->castfunc : InvalidOid;
    ReleaseSysCache(cast);
    return function;
}

// In C, and for this type alone: what takes any type may look up its casts in turn.
bool is_made_in_c(Oid function, Oid type) {
    HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
    if (!HeapTupleIsValid(tuple)) return false;
    auto* form = reinterpret_cast<Form_pg_proc>(GETSTRUCT(tuple));
    bool is = form->prolang == ClanguageId && form->pronargs > 0 && form->proargtypes.values[0] == type;
    ReleaseSysCache(tuple);
    return is;
}

}  // namespace

// A polymorphic function has to be told what it is given; outside of an expression only a made-up one can say it.
bool look_up_json_cast(JsonType* type) {
    JsonWalk* walk = type->walk;
    if (type->type < FirstNormalObjectId) return false;
    note_cast_to_json(walk, type->type);
    Oid function = cast_function(type->type);
    if (!OidIsValid(function)) return false;
    note_function(walk, function);
    if (walk->in_c_only && !is_made_in_c(function, type->type)) return false;
    fmgr_info_cxt(function, &type->function, walk->memory);
    MemoryContext before = MemoryContextSwitchTo(walk->memory);
    List* arguments = list_make1(makeNullConst(type->type, -1, get_typcollation(type->type)));
    if (type->function.fn_nargs > 1) arguments = lappend(arguments, makeNullConst(INT4OID, -1, InvalidOid));
    if (type->function.fn_nargs > 2) arguments = lappend(arguments, makeBoolConst(true, false));
    fmgr_info_set_expr(reinterpret_cast<Node*>(makeFuncExpr(function, JSONOID, arguments, InvalidOid,
                                                            get_typcollation(type->type), COERCE_EXPLICIT_CAST)),
                       &type->function);
    MemoryContextSwitchTo(before);
    return true;
}

// The second parameter is json's typmod, which it has none of, and the third whether the cast is written out.
void append_json_cast(StringInfo out, JsonType* type, Datum value) {
    constexpr short most = 3;
    LOCAL_FCINFO(call, most);
    const auto* cast = reinterpret_cast<const FuncExpr*>(type->function.fn_expr);
    InitFunctionCallInfoData(*call, &type->function, type->function.fn_nargs, cast->inputcollid, nullptr, nullptr);
    call->args[0] = {value, false};
    call->args[1] = {Int32GetDatum(-1), false};
    call->args[2] = {BoolGetDatum(true), false};
    Datum json = FunctionCallInvoke(call);
    if (call->isnull)
        put(out, "null");
    else
        append_json_text(out, json);
}

}  // namespace eventbus
