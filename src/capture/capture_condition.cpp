// What it is: the condition of eventbus.capture: SQL over OLD and NEW, made into what a trigger's WHEN is.
// Who calls it: eventbus.capture.
// Never: runs with other rights than the caller's: reading a literal may call functions of theirs.
#include "capture/capture.hpp"
#include "postgres/compat.hpp"

extern "C" {
#include "catalog/pg_trigger.h"
#include "nodes/makefuncs.h"
#include "parser/parse_clause.h"
#include "parser/parse_collate.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "rewrite/prs2lock.h"
}

namespace eventbus::capture {

namespace {

void say_whose_error(void* condition) {
    int position = geterrposition();
    if (position > 0) {
        errposition(0);
        internalerrposition(position);
        internalerrquery(static_cast<const char*>(condition));
    }
    errcontext("condition of eventbus.capture");
}

Node* parse(const char* condition) {
    List* parsed = raw_parser(condition, RAW_PARSE_PLPGSQL_EXPR);
    auto* select = castNode(SelectStmt, linitial_node(RawStmt, parsed)->stmt);
    bool expression = list_length(select->targetList) == 1 && select->fromClause == NIL &&
                      select->whereClause == nullptr && select->groupClause == NIL && select->havingClause == nullptr &&
                      select->windowClause == NIL && select->sortClause == NIL && select->limitCount == nullptr &&
                      select->limitOffset == nullptr && select->lockingClause == NIL && select->distinctClause == NIL &&
                      select->op == SETOP_NONE;
    if (!expression)
        ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("condition must be one expression"),
                        errhint("For example NEW.total > 100 AND NEW.state IS DISTINCT FROM OLD.state.")));
    return linitial_node(ResTarget, select->targetList)->val;
}

// What names the row that there is none of becomes null.
Node* without_row(Node* node, void* missing) {
    if (node == nullptr) return nullptr;
    if (IsA(node, Var)) {
        auto* column = reinterpret_cast<Var*>(node);
        if (static_cast<int>(column->varno) == *static_cast<int*>(missing))
            return reinterpret_cast<Node*>(makeNullConst(column->vartype, column->vartypmod, column->varcollid));
    }
    return compat::mutate_expression(node, without_row, missing);
}

}  // namespace

CaptureCondition read_condition(Relation rel, const char* text, int16 operation) {
    ErrorContextCallback context = {error_context_stack, say_whose_error, const_cast<char*>(text)};
    error_context_stack = &context;
    ParseState* state = make_parsestate(nullptr);
    state->p_sourcetext = text;
    constexpr const char* rows[] = {"old", "new"};  // by number PRS2_OLD_VARNO and PRS2_NEW_VARNO
    for (const char* row : rows)
        addNSItemToQuery(state,
                         addRangeTableEntryForRelation(state, rel, AccessShareLock, makeAlias(row, NIL), false, false),
                         false, true, true);
    Node* expression = transformWhereClause(state, parse(text), EXPR_KIND_TRIGGER_WHEN, "WHEN");
    assign_expr_collations(state, expression);
    int missing = operation == TRIGGER_TYPE_INSERT   ? PRS2_OLD_VARNO
                  : operation == TRIGGER_TYPE_DELETE ? PRS2_NEW_VARNO
                                                     : 0;
    expression = without_row(expression, &missing);
    error_context_stack = context.previous;
    return {expression, state->p_rtable};
}

}  // namespace eventbus::capture
