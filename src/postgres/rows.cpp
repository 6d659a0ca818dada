#include "postgres/rows.hpp"

#include <algorithm>

#include "core/utf8.hpp"
#include "postgres/encoding.hpp"
#include "postgres/type_json.hpp"

extern "C" {
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/relcache.h"
}

namespace eventbus {

namespace {

// The type's output with the settings that it may depend on at known values.
char* settled_output(FmgrInfo* output, Datum value) {
    struct Setting {
        const char* name;
        const char* value;
    };
    static constexpr Setting settings[] = {{"bytea_output", "hex"},
                                           {"datestyle", "ISO"},
                                           {"extra_float_digits", "1"},
                                           {"intervalstyle", "postgres"},
                                           {"lc_monetary", "C"},
                                           {"quote_all_identifiers", "off"},
                                           {"search_path", "pg_catalog, pg_temp"},
                                           {"timezone", "UTC"}};
    int level = NewGUCNestLevel();
    for (const Setting& setting : settings)
        (void)set_config_option(setting.name, setting.value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
                                false);
    char* words = OutputFunctionCall(output, value);
    AtEOXact_GUC(true, level);
    return words;
}

// In SQL_ASCII what is UTF-8 is taken for it.
int text_encoding() {
    return GetDatabaseEncoding() == PG_SQL_ASCII ? PG_UTF8 : GetDatabaseEncoding();
}

// As what it is delivered.
Size utf8_length(std::string_view text) {
    if (text_encoding() == PG_UTF8 || text.size() <= longest_key / MAX_CONVERSION_GROWTH) return text.size();
    return to_utf8_or_marks(text).size();
}

// How much of the text, whole characters, has at most so many bytes in UTF-8.
int fitting_length(const char* text, int length, int most) {
    for (int room = most;;) {
        length = pg_encoding_mbcliplen(text_encoding(), text, length, room);
        const auto delivered = static_cast<int>(utf8_length({text, static_cast<Size>(length)}));
        if (delivered <= most) return length;
        room = length - 1 - (delivered - most) / MAX_CONVERSION_GROWTH;
    }
}

}  // namespace

List* identity_columns(Relation rel) {
    List* identity = NIL;
    List* primary = NIL;  // the relation cache knows it only where it is not deferrable
    ListCell* cell;
    foreach (cell, RelationGetIndexList(rel)) {
        Relation index = RelationIdGetRelation(lfirst_oid(cell));
        if (!RelationIsValid(index)) continue;
        Form_pg_index form = index->rd_index;
        bool is_identity = rel->rd_rel->relreplident == REPLICA_IDENTITY_INDEX && form->indisreplident;
        List** names = is_identity ? &identity : &primary;
        for (int i = 0; (is_identity || form->indisprimary) && i < form->indnkeyatts; ++i) {
            Form_pg_attribute column = TupleDescAttr(RelationGetDescr(rel), form->indkey.values[i] - 1);
            *names = lappend(*names, pstrdup(NameStr(column->attname)));
        }
        RelationClose(index);
    }
    return identity != NIL ? identity : primary;
}

void append_key_part(StringInfo out, Oid type, FmgrInfo* output, Datum value) {
    char text[MAXDATELEN + 1];
    const char* words = text;
    switch (type) {
        case INT4OID:
        case INT8OID:
            put(out, text, pg_lltoa(type == INT8OID ? DatumGetInt64(value) : DatumGetInt32(value), text));
            return;
        case BOOLOID:
        case BPCHAROID:
        case INT2OID:
        case NUMERICOID:
        case TEXTOID:
        case UUIDOID:
        case VARCHAROID:
            words = OutputFunctionCall(output, value);
            break;
        case DATEOID:
        case TIMESTAMPOID:
        case TIMESTAMPTZOID: {
            constexpr int utc = 0;
            JsonEncodeDateTime(text, value, type, &utc);
            break;
        }
        default:
            words = settled_output(output, value);
    }
    put(out, words, static_cast<int>(strlen(words)));
}

text* make_event_key(StringInfo words) {
    constexpr int hash_room = 17;
    char* text_begin = words->data + VARHDRSZ;
    int length = words->len - VARHDRSZ;
    if (utf8_length({text_begin, static_cast<Size>(length)}) > longest_key) {
        uint64 hash = hash_bytes_extended(reinterpret_cast<unsigned char*>(text_begin), length, 0);
        words->len = VARHDRSZ + fitting_length(text_begin, length, longest_key - hash_room);
        appendStringInfo(words, "~%016lx", static_cast<unsigned long>(hash));
    }
    SET_VARSIZE(words->data, words->len);
    return reinterpret_cast<text*>(words->data);
}

void append_topic_word(StringInfo topic, const char* name) {
    for (std::string_view rest = name; !rest.empty();) {
        const auto bytes = static_cast<Size>(std::max(1, pg_encoding_mblen(text_encoding(), rest.data())));
        const auto character = rest.substr(0, bytes);
        rest.remove_prefix(character.size());
        const bool foreign = strchr(".*#+", character[0]) != nullptr || is_control_at(to_utf8_or_marks(character), 0);
        appendBinaryStringInfo(topic, foreign ? "_" : character.data(),
                               foreign ? 1 : static_cast<int>(character.size()));
    }
}

void append_table_topic(StringInfo topic, const char* schema, const char* table, const char* operation) {
    append_topic_word(topic, schema);
    appendStringInfoChar(topic, '.');
    append_topic_word(topic, table);
    appendStringInfo(topic, ".%s", operation);
}

}  // namespace eventbus
