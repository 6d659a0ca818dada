#include "catalog/arguments.hpp"

#include "postgres/encoding.hpp"
#include "postgres/json_size.hpp"

extern "C" {
#include "utils/syscache.h"
}

namespace eventbus::catalog {

void refuse_null(const char* function, const char* argument) {
    ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", argument),
                    errdetail("eventbus.%s was called with a null %s.", function, argument),
                    errhint("\\df+ eventbus.%s describes the arguments.", function)));
    pg_unreachable();
}

char* required_text(FunctionCallInfo fcinfo, int index, const char* function, const char* argument) {
    if (PG_ARGISNULL(index)) refuse_null(function, argument);
    return text_to_cstring(PG_GETARG_TEXT_PP(index));
}

char* required_name(FunctionCallInfo fcinfo, int index, const char* function, const char* noun) {
    char* name = required_text(fcinfo, index, function, "name");
    bool printable = true;
    for (const char* c = name; *c != '\0'; ++c)
        printable = printable && static_cast<unsigned char>(*c) >= 0x20 && *c != 0x7f;
    if (*name == '\0' || strlen(name) >= NAMEDATALEN || !printable)
        ereport(ERROR, (errcode(ERRCODE_INVALID_NAME), errmsg("invalid %s name", noun),
                        *name == '\0' ? errdetail("The name is empty.")
                        : printable   ? errdetail("The name is %zu bytes long.", strlen(name))
                                      : errdetail("The name has a control character in it."),
                        errhint("A name is 1 to %d bytes long and has no control characters.", NAMEDATALEN - 1)));
    return name;
}

char* optional_text(FunctionCallInfo fcinfo, int index) {
    return PG_ARGISNULL(index) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(index));
}

char* object_text(FunctionCallInfo fcinfo, int index, const char* fallback, const char* example) {
    if (PG_ARGISNULL(index)) return fallback == nullptr ? nullptr : pstrdup(fallback);
    Jsonb* json = PG_GETARG_JSONB_P(index);
    if (!JB_ROOT_IS_OBJECT(json))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("options must be a JSON object"),
                        errhint("For example %s.", example)));
    constexpr JsonMeasures most = {100, 1024 * 1024};
    const JsonMeasures found = measure_json(json, most);
    if (found.depth > most.depth || found.bytes > most.bytes)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("options are too large"),
                        errdetail("They are nested deeper than 100, or longer than 1 MB."),
                        errhint("For example %s.", example)));
    return JsonbToCString(nullptr, &json->root, static_cast<int>(VARSIZE(json)));
}

char* changed_options(const char* current, const char* changes, bool replace, CheckName check_name, const char* url) {
    if (changes == nullptr || replace) return pstrdup(replace ? changes : current);
    run_query("SELECT key FROM jsonb_each($2::jsonb) WHERE value = 'null' AND NOT $1::jsonb ? key",
              {Argument::of(current), Argument::of(changes)});
    for (uint64 i = 0; i < SPI_processed; ++i) check_name(to_utf8_or_marks(text_at(i, 1)), url);
    run_query(
        "SELECT coalesce(jsonb_object_agg(key, value), '{}')::text FROM jsonb_each($1::jsonb || $2::jsonb) "
        "WHERE value <> 'null'",
        {Argument::of(current), Argument::of(changes)});
    return text_at(0, 1);
}

bool wants_replacement(FunctionCallInfo fcinfo, int index, const char* options) {
    const bool replace = !PG_ARGISNULL(index) && PG_GETARG_BOOL(index);
    if (replace && options == nullptr)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("nothing to replace the options by"),
                        errdetail("replace is true, and options is null."),
                        errhint("Give all options that there shall be, as in options => '{}', replace => true.")));
    return replace;
}

Argument required_role(FunctionCallInfo fcinfo, const char* function) {
    if (PG_ARGISNULL(0)) refuse_null(function, "role");
    Oid role = PG_GETARG_OID(0);
    if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("role with OID %u does not exist", role),
                        errhint("Name a role, as in 'app'.")));
    return {REGROLEOID, ObjectIdGetDatum(role), false};
}

const router::TopicFilter* read_patterns(const char* topics) {
    return make_guest<router::TopicFilter>(CurrentMemoryContext, topics);
}

}  // namespace eventbus::catalog
