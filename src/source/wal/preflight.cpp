#include "source/wal/preflight.hpp"

#include <algorithm>

#include "decoder/plugin_options.hpp"
#include "postgres/encoding.hpp"
#include "postgres/query.hpp"
#include "postgres/rows.hpp"
#include "source/wal/slot.hpp"
#include "source/wal/source_state.hpp"

extern "C" {
#include "access/xlog.h"
#include "replication/slot.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/varlena.h"
}

namespace eventbus::wal {

namespace {

constexpr const char* libraries_setting = "output_plugin_libraries";

bool lists(const char* names, const char* name) {
    List* list = NIL;
    ListCell* cell;
    if (!SplitDirectoriesString(pstrdup(names), ',', &list)) return false;
    foreach (cell, list)
        if (strcmp(static_cast<char*>(lfirst(cell)), name) == 0) return true;
    return false;
}

char* without_quotes(const char* names) {
    char* made = pstrdup(names);
    made[std::remove(made, made + strlen(made), '"') - made] = '\0';
    return made;
}

// The publications of the selection, as name[]; null where it names none.
Argument names_in(const decoder::Options& options) {
    if (!options.by_publication) return Argument::null_of(NAMEARRAYOID);
    int count = list_length(options.publications);
    auto* names = static_cast<Datum*>(palloc(sizeof(Datum) * static_cast<Size>(count)));
    for (int i = 0; i < count; ++i)
        names[i] = DirectFunctionCall1(namein, CStringGetDatum(static_cast<char*>(list_nth(options.publications, i))));
    ArrayType* array = construct_array(names, count, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR);
    return {NAMEARRAYOID, PointerGetDatum(array), false};
}

bool wants_any(const decoder::Options& options, AskForTopic ask, const char* schema, const char* table,
               std::initializer_list<decoder::Operation> operations) {
    for (decoder::Operation operation : operations) {
        if (!options.actions[static_cast<int>(operation)]) continue;
        StringInfoData topic;
        initStringInfo(&topic);
        append_table_topic(&topic, schema, table, operation_words[static_cast<int>(operation)]);
        if (ask.wants(ask.context, to_utf8_or_marks({topic.data, static_cast<Size>(topic.len)}))) return true;
    }
    return false;
}

// How to set it where it is set now. What ALTER SYSTEM is given in quotes is one name.
const char* set_by(const char* name, const char* value, bool restart) {
    run_query("SELECT FROM pg_settings WHERE name = $1 AND sourcefile LIKE '%/postgresql.auto.conf'",
              {Argument::of(name)}, true);
    if (SPI_processed > 0)
        return psprintf("Run ALTER SYSTEM SET %s = %s; and %s.", name, value,
                        restart ? "restart the server" : "SELECT pg_reload_conf();");
    const char* quote = strpbrk(value, ", ") != nullptr ? "'" : "";
    return psprintf("Put this line into postgresql.conf and %s: %s = %s%s%s",
                    restart ? "restart the server" : "reload it", name, quote, value, quote);
}

}  // namespace

Need missing_setting(bool slot_exists) {
    if (wal_level < WAL_LEVEL_LOGICAL)
        return {"wal_level is not logical: changes cannot be read from the WAL", set_by("wal_level", "logical", true)};
    const char* libraries = GetConfigOption(libraries_setting, true, false);
    if (libraries != nullptr && !lists(libraries, plugin)) {
        constexpr const char* words = "output_plugin_libraries does not list pg_eventbus: no slot can be decoded by it";
        const char* names = without_quotes(libraries);
        if (lists(names, plugin))
            return {words, psprintf("What ALTER SYSTEM is given in quotes is one name. %s",
                                    set_by(libraries_setting, names, false))};
        const char* more = psprintf("%s%s%s", libraries, *libraries != '\0' ? ", " : "", plugin);
        return {words, set_by(libraries_setting, more, false)};
    }
    if (slot_exists) return {};
    run_query(
        "SELECT count(*), (SELECT count(DISTINCT broker_id) FROM eventbus.route_config WHERE source = 'wal') "
        "FROM pg_replication_slots",
        {}, true);
    constexpr int64 some_more = 4;  // or, with many brokers, one for each and for the one that is asked for
    if (const int64 used = int8_at(0, 1); used >= max_replication_slots)
        return {psprintf("no replication slot is free: all %d are in use", max_replication_slots),
                set_by("max_replication_slots", psprintf(INT64_FORMAT, used + std::max(some_more, int8_at(0, 2) + 1)),
                       true)};
    return {};
}

const char* missing_publications(const Selection& selection) {
    decoder::Options options;
    read_selection(selection, &options);
    run_query(
        "SELECT string_agg(quote_ident(name), ', ') FROM unnest($1) name "
        "WHERE NOT EXISTS (SELECT FROM pg_publication WHERE pubname = name)",
        {names_in(options)}, true);
    return text_at(0, 1);
}

const char* tables_without_identity(const Selection& selection, AskForTopic ask) {
    decoder::Options options;
    read_selection(selection, &options);
    constexpr int most = 5;
    if (!options.actions[static_cast<int>(decoder::Operation::update)] &&
        !options.actions[static_cast<int>(decoder::Operation::remove)])
        return nullptr;
    run_query(
        "SELECT n.nspname::text, c.relname::text, c.oid::regclass::text FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relpersistence = 'p' "
        "AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'eventbus') "
        "AND (c.relreplident = 'n' OR (c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index i "
        "WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate))) "
        "AND ($1 IS NULL OR EXISTS (SELECT FROM pg_publication_tables t WHERE t.schemaname = n.nspname "
        "AND t.tablename = c.relname AND t.pubname = ANY ($1))) ORDER BY 3",
        {names_in(options)}, true);
    StringInfoData names;
    initStringInfo(&names);
    int found = 0;
    for (uint64 i = 0; i < SPI_processed; ++i) {
        if (!decoder::wants_table(options, text_at(i, 1), text_at(i, 2)) ||
            !wants_any(options, ask, text_at(i, 1), text_at(i, 2),
                       {decoder::Operation::update, decoder::Operation::remove}))
            continue;
        if (found < most) appendStringInfo(&names, "%s%s", found > 0 ? ", " : "", text_at(i, 3));
        ++found;
    }
    if (found > most) appendStringInfo(&names, " and %d more", found - most);
    return found > 0 ? names.data : nullptr;
}

// The relations that somebody may take for tables: schema, name, kind, persistence, whether its changes go under its
// name.
static uint64 find_relations(const decoder::Options& options) {
    return run_query(
        "SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, "
        "CASE WHEN $1 IS NULL THEN c.relkind <> 'p' ELSE EXISTS (SELECT FROM pg_publication_tables t "
        "WHERE t.schemaname = n.nspname AND t.tablename = c.relname AND t.pubname = ANY ($1)) END "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') "
        "AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'eventbus') ORDER BY 1, 2",
        {names_in(options)}, true);
}

// Why the rows of a relation that was found are no changes in the WAL, or not those of a publication, as
// " (schema.name is …)"; nullptr: they are.
static const char* why_never(const decoder::Options& options, uint64 row) {
    const bool published = bool_at(row, 5);
    const char* why = nullptr;
    switch (*text_at(row, 3)) {
        case RELKIND_RELATION:
            if (*text_at(row, 4) != RELPERSISTENCE_PERMANENT)
                why = "is unlogged: the WAL does not have its rows";
            else if (!published)
                why = "is in none of the route's publications";
            break;
        case RELKIND_PARTITIONED_TABLE:
            // A publication via its root says the root's name.
            if (published) break;
            why = options.by_publication ? "is partitioned, and none of the route's publications has it with "
                                           "publish_via_partition_root: its rows are changes of its partitions, under "
                                           "their names"
                                         : "is partitioned: its rows are changes of its partitions, under their names; "
                                           "a publication with publish_via_partition_root has them under its own";
            break;
        case RELKIND_FOREIGN_TABLE:
            why = "is a foreign table: its rows are elsewhere";
            break;
        default:
            why = "is no table";
    }
    return why == nullptr ? nullptr : psprintf(" (%s.%s %s)", text_at(row, 1), text_at(row, 2), why);
}

const char* patterns_without_tables(const Selection& selection) {
    decoder::Options options;
    read_selection(selection, &options);
    bool any = false;
    ListCell* cell;
    foreach (cell, options.tables) any = any || !static_cast<decoder::Pattern*>(lfirst(cell))->except;
    if (!any) return nullptr;
    const uint64 count = find_relations(options);
    StringInfoData names;
    initStringInfo(&names);
    foreach (cell, options.tables) {
        auto* pattern = static_cast<decoder::Pattern*>(lfirst(cell));
        List* alone = list_make1(pattern);
        bool fits = pattern->except;
        const char* why = nullptr;
        for (uint64 i = 0; i < count && !fits; ++i) {
            if (!decoder::fits(alone, text_at(i, 1), text_at(i, 2)) ||
                !decoder::wants_table(options, text_at(i, 1), text_at(i, 2)))
                continue;
            const char* never = why_never(options, i);
            fits = never == nullptr;
            if (why == nullptr) why = never;
        }
        if (!fits)
            appendStringInfo(&names, "%s%s.%s%s", names.len > 0 ? ", " : "", pattern->schema, pattern->name,
                             why != nullptr ? why : "");
    }
    return names.len > 0 ? names.data : nullptr;
}

// Whether the topics want changes of the table by its name: those of another one in its place they do not.
static bool wants_by_name(const decoder::Options& options, AskForTopic ask, const char* schema, const char* table) {
    const char* other = psprintf("%s_and_not_this_one", table);
    for (decoder::Operation operation : {decoder::Operation::insert, decoder::Operation::update,
                                         decoder::Operation::remove, decoder::Operation::truncate})
        if (wants_any(options, ask, schema, table, {operation}) && !wants_any(options, ask, schema, other, {operation}))
            return true;
    return false;
}

const char* topics_without_rows(const Selection& selection, AskForTopic ask) {
    decoder::Options options;
    read_selection(selection, &options);
    const uint64 count = find_relations(options);
    StringInfoData names;
    initStringInfo(&names);
    for (uint64 i = 0; i < count; ++i) {
        const char* schema = text_at(i, 1);
        const char* table = text_at(i, 2);
        if (strchr("vm", *text_at(i, 3)) != nullptr || !decoder::wants_table(options, schema, table) ||
            !wants_by_name(options, ask, schema, table))
            continue;
        if (const char* never = why_never(options, i))
            appendStringInfo(&names, "%s%s.%s%s", names.len > 0 ? ", " : "", schema, table, never);
    }
    return names.len > 0 ? names.data : nullptr;
}

static bool takes_no_rows(const Selection& selection, AskForTopic ask) {
    decoder::Options options;
    read_selection(selection, &options);
    run_query(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE (c.relkind = 'r' OR c.relkind = 'p' AND $1 IS NOT NULL) AND c.relpersistence = 'p' "
        "AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'eventbus') "
        "AND ($1 IS NULL OR EXISTS (SELECT FROM pg_publication_tables t JOIN pg_publication p USING (pubname) "
        "WHERE t.schemaname = n.nspname AND t.tablename = c.relname AND t.pubname = ANY ($1) "
        "AND (($2 AND pubinsert) OR ($3 AND pubupdate) OR ($4 AND pubdelete) OR ($5 AND pubtruncate))))",
        {names_in(options), Argument::of(options.actions[static_cast<int>(decoder::Operation::insert)]),
         Argument::of(options.actions[static_cast<int>(decoder::Operation::update)]),
         Argument::of(options.actions[static_cast<int>(decoder::Operation::remove)]),
         Argument::of(options.actions[static_cast<int>(decoder::Operation::truncate)])},
        true);
    for (uint64 i = 0; i < SPI_processed; ++i)
        if (decoder::wants_table(options, text_at(i, 1), text_at(i, 2)) &&
            wants_any(options, ask, text_at(i, 1), text_at(i, 2),
                      {decoder::Operation::insert, decoder::Operation::update, decoder::Operation::remove,
                       decoder::Operation::truncate}))
            return false;
    return true;
}

bool takes_nothing(const Selection& selection, AskForTopic ask) {
    return selection.messages != nullptr && strcmp(selection.messages, "-*") == 0 && takes_no_rows(selection, ask);
}

bool names_tables_in_vain(const Selection& selection, AskForTopic ask) {
    return selection.tables != nullptr && selection.tables[0] != '-' && takes_no_rows(selection, ask);
}

const char* contradicted_table(const Selection& selection, AskForTopic ask) {
    decoder::Options options;
    read_selection(selection, &options);
    if (list_length(options.publications) < 2) return nullptr;
    run_query(
        "SELECT schemaname::text, tablename::text, format('%I.%I', schemaname, tablename) FROM pg_publication_tables "
        "WHERE pubname = ANY ($1) GROUP BY 1, 2, 3 HAVING count(DISTINCT attnames) > 1 ORDER BY 3",
        {names_in(options)}, true);
    for (uint64 i = 0; i < SPI_processed; ++i)
        if (decoder::wants_table(options, text_at(i, 1), text_at(i, 2)) &&
            wants_any(options, ask, text_at(i, 1), text_at(i, 2),
                      {decoder::Operation::insert, decoder::Operation::update, decoder::Operation::remove}))
            return text_at(i, 3);
    return nullptr;
}

const char* words_without_identity(const Selection& selection) {
    decoder::Options options;
    read_selection(selection, &options);
    if (options.wal2json) return "wal2json's format has no words for an UPDATE or DELETE there, so it makes no event";
    return "Events of a DELETE have neither key nor values there, those of an UPDATE a key only from a primary key";
}

}  // namespace eventbus::wal
