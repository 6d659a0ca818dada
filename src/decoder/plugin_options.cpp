#include "decoder/plugin_options.hpp"

#include "decoder/lists.hpp"

extern "C" {
#include "nodes/parsenodes.h"
#include "utils/guc.h"
#include "utils/varlena.h"
}

namespace eventbus::decoder {

namespace {

struct Given {
    const char* name;
    const char* value;  // nullptr: named without a value
};

[[noreturn]] void cannot_parse(const char* value, const char* name) {
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("could not parse value \"%s\" for parameter \"%s\"", value, name)));
}

// The same words under another code: wal2json tells broken lists from broken values.
[[noreturn]] void cannot_split(const Given& option) {
    ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
                    errmsg("could not parse value \"%s\" for parameter \"%s\"", option.value, option.name)));
}

void read_switch(const Given& option, bool* result) {
    if (option.value == nullptr)
        *result = true;
    else if (!parse_bool(option.value, result))
        cannot_parse(option.value, option.name);
}

void read_list(const Given& option, List** result) {
    if (option.value == nullptr)
        *result = NIL;
    else if (!split_words(option.value, result))
        cannot_split(option);
}

void read_tables(const Given& option, List** result) {
    if (option.value == nullptr)
        *result = NIL;
    else if (!split_tables(option.value, result))
        cannot_split(option);
}

const char* text_of(const Given& option) {
    if (option.value == nullptr)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("option \"%s\" needs a value", option.name)));
    return option.value;
}

void read_pattern_list(const Given& option, bool qualified, List** result) {
    if (!read_patterns(text_of(option), qualified, result))
        ereport(ERROR,
                (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                 errmsg("could not parse value \"%s\" for parameter \"%s\"", option.value, option.name),
                 qualified ? errhint("Write a list such as \"public.*, shop.order_?, -shop.order_old\": each has a "
                                     "schema, and no quotes; a blank, comma or dot within a name has a \\ before "
                                     "it.")
                           : errhint("Write a list such as \"shop.*, -shop.debug\".")));
}

// Options that are on or off. `place` says for whom they are.
enum class Place : unsigned char { both, debezium, wal2json };

struct Switch {
    const char* name;
    bool Options::*member;
    Place place;
};
constexpr Switch switches[] = {
    {"skip-empty-xacts", &Options::skip_empty, Place::both},
    {"transactions", &Options::transactions, Place::debezium},
    {"streaming", &Options::streaming, Place::debezium},
    {"include-transaction", &Options::include_transaction, Place::wal2json},
    {"include-xids", &Options::include_xids, Place::wal2json},
    {"include-timestamp", &Options::include_timestamp, Place::wal2json},
    {"include-pk", &Options::include_pk, Place::wal2json},
    {"include-origin", &Options::include_origin, Place::wal2json},
    {"include-schemas", &Options::include_schemas, Place::wal2json},
    {"include-types", &Options::include_types, Place::wal2json},
    {"include-type-oids", &Options::include_type_oids, Place::wal2json},
    {"include-typmod", &Options::include_typmod, Place::wal2json},
    {"include-domain-data-type", &Options::include_domain_data_type, Place::wal2json},
    {"include-column-positions", &Options::include_column_positions, Place::wal2json},
    {"include-not-null", &Options::include_not_null, Place::wal2json},
    {"include-default", &Options::include_default, Place::wal2json},
    {"numeric-data-types-as-string", &Options::numbers_as_strings, Place::wal2json},
    {"pretty-print", &Options::pretty_print, Place::wal2json},
    {"write-in-chunks", &Options::write_in_chunks, Place::wal2json},
    {"include-lsn", &Options::include_lsn, Place::wal2json},
};

void read_format(const Given& option, Options* options) {
    if (strcmp(text_of(option), "debezium") != 0 && strcmp(option.value, "wal2json") != 0)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("format \"%s\" is unknown", option.value),
                        errhint("Valid formats are debezium and wal2json.")));
    options->wal2json = strcmp(option.value, "wal2json") == 0;
}

void read_publications(const Given& option, Options* options) {
    char* copy = pstrdup(text_of(option));
    if (!SplitIdentifierString(copy, ',', &options->publications) || options->publications == NIL)
        ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
                        errmsg("could not parse value \"%s\" for parameter \"%s\"", option.value, option.name),
                        errhint("Write names of publications, separated by commas.")));
    options->by_publication = true;
}

void read_origin(const Given& option, Options* options) {
    if (pg_strcasecmp(text_of(option), "none") != 0 && pg_strcasecmp(option.value, "any") != 0)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("could not parse value \"%s\" for parameter \"%s\"", option.value, option.name),
                        errhint("Valid values are any, and none for changes made on this server.")));
    options->local_only = pg_strcasecmp(option.value, "none") == 0;
}

void read_source(const Given& option, Options* options) {
    options->source = pstrdup(text_of(option));
}

void read_actions(const Given& option, Options* options) {
    static constexpr const char* names[operation_count] = {"insert", "update", "delete", "truncate"};
    if (option.value == nullptr) return;
    List* words = NIL;
    if (!split_words(option.value, &words)) cannot_split(option);
    for (bool& action : options->actions) action = false;
    ListCell* cell;
    foreach (cell, words) {
        const char* word = static_cast<char*>(lfirst(cell));
        bool known = false;
        for (int i = 0; i < operation_count; ++i)
            if (strcmp(word, names[i]) == 0) known = options->actions[i] = true;
        if (!known) cannot_parse(word, option.name);
    }
}

void read_add_tables(const Given& option, Options* options) {
    options->add_all_tables = false;
    options->add_tables = NIL;
    read_tables(option, &options->add_tables);
}

void read_filter_origins(const Given& option, Options* options) {
    if (option.value == nullptr)
        options->filter_origins = NIL;
    else if (!split_oids(option.value, &options->filter_origins))
        cannot_split(option);
}

void read_version(const Given& option, Options* options) {
    constexpr int lowest = 1, highest = 2;
    if (option.value == nullptr)
        options->version = highest;
    else if (!parse_int(option.value, &options->version, 0, nullptr))
        cannot_parse(option.value, option.name);
    if (options->version > highest)
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("client sent format_version=%d but we only support format %d or lower", options->version,
                               highest)));
    if (options->version < lowest)
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("client sent format_version=%d but we only support format %d or higher",
                               options->version, lowest)));
}

void refuse_deprecated(const Given& option, Options*) {
    ereport(ERROR, (errcode(ERRCODE_INVALID_NAME), errmsg("parameter \"%s\" was deprecated", option.name)));
}

struct Reader {
    const char* name;
    void (*read)(const Given& option, Options* options);
    Place place;
    bool implies_wal2json;
};
constexpr Reader readers[] = {
    {"format", read_format, Place::both, false},
    {"tables", [](const Given& o, Options* to) { read_pattern_list(o, true, &to->tables); }, Place::both, false},
    {"messages", [](const Given& o, Options* to) { read_pattern_list(o, false, &to->messages); }, Place::both, false},
    {"publication_names", read_publications, Place::both, false},
    {"origin", read_origin, Place::both, false},
    {"source", read_source, Place::debezium, false},
    {"actions", read_actions, Place::both, true},
    {"filter-origins", read_filter_origins, Place::both, true},
    {"filter-tables", [](const Given& o, Options* to) { read_tables(o, &to->filter_tables); }, Place::both, true},
    {"add-tables", read_add_tables, Place::both, true},
    {"filter-msg-prefixes", [](const Given& o, Options* to) { read_list(o, &to->filter_prefixes); }, Place::both, true},
    {"add-msg-prefixes", [](const Given& o, Options* to) { read_list(o, &to->add_prefixes); }, Place::both, true},
    {"format-version", read_version, Place::wal2json, true},
    {"include-unchanged-toast", refuse_deprecated, Place::wal2json, true},
};

const Switch* find_switch(const char* name) {
    for (const Switch& known : switches)
        if (strcmp(known.name, name) == 0) return &known;
    return nullptr;
}

const Reader* find_reader(const char* name) {
    for (const Reader& known : readers)
        if (strcmp(known.name, name) == 0) return &known;
    return nullptr;
}

Given given_by(const ListCell* cell) {
    auto* element = static_cast<DefElem*>(lfirst(cell));
    return {element->defname, element->arg == nullptr ? nullptr : strVal(element->arg)};
}

// wal2json's own options mean its format, unless a format is named.
void choose_format(List* given, Options* options) {
    bool named = false;
    bool implied = false;
    ListCell* cell;
    foreach (cell, given) {
        Given option = given_by(cell);
        if (strcmp(option.name, "format") == 0) {
            read_format(option, options);
            named = true;
        }
        const Switch* on_off = find_switch(option.name);
        const Reader* reader = find_reader(option.name);
        implied = implied || (on_off != nullptr && on_off->place == Place::wal2json) ||
                  (reader != nullptr && reader->implies_wal2json);
    }
    if (!named) options->wal2json = implied;
}

// As wal2json says it where it is wal2json's format, so without a list; but an option of ours is no mere typing error.
[[noreturn]] void refuse_unknown(const Given& option, bool wal2json) {
    const char* value = option.value != nullptr ? option.value : "(null)";
    bool ours = find_switch(option.name) != nullptr || find_reader(option.name) != nullptr;
    if (wal2json)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("option \"%s\" = \"%s\" is unknown", option.name, value),
                        ours ? errdetail("It is one of format debezium; the format is wal2json.") : 0,
                        ours ? errhint("wal2json's own options imply its format, unless \"format\" is given.") : 0));
    StringInfoData known;
    initStringInfo(&known);
    auto add = [&](const char* name) { appendStringInfo(&known, "%s%s", known.len > 0 ? ", " : "", name); };
    for (const Reader& reader : readers)
        if (reader.place != Place::wal2json) add(reader.name);
    for (const Switch& on_off : switches)
        if (on_off.place != Place::wal2json) add(on_off.name);
    ereport(ERROR,
            (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("option \"%s\" = \"%s\" is unknown", option.name, value),
             errdetail("The format is debezium."), errhint("Valid options are %s.", known.data)));
}

bool belongs(Place place, bool wal2json) {
    return place == Place::both || (place == Place::wal2json) == wal2json;
}

}  // namespace

void read_options(List* given, Options* options) {
    *options = {};
    options->version = 1;
    for (bool& action : options->actions) action = true;
    options->add_all_tables = true;
    options->include_transaction = true;
    options->include_schemas = true;
    options->include_types = true;
    options->include_typmod = true;
    options->tab = options->line = options->space = "";
    choose_format(given, options);

    ListCell* cell;
    foreach (cell, given) {
        Given option = given_by(cell);
        const Switch* on_off = find_switch(option.name);
        const Reader* reader = find_reader(option.name);
        if (on_off != nullptr && belongs(on_off->place, options->wal2json))
            read_switch(option, &(options->*on_off->member));
        else if (reader != nullptr && belongs(reader->place, options->wal2json))
            reader->read(option, options);
        else
            refuse_unknown(option, options->wal2json);
        if (options->pretty_print) {
            options->tab = "\t";
            options->line = "\n";
            options->space = " ";
        }
    }
}

}  // namespace eventbus::decoder
