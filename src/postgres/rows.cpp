// What it is: see rows.hpp.
// Who calls it: see rows.hpp.
// Never: see rows.hpp.
#include "postgres/rows.hpp"

extern "C" {
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "utils/relcache.h"
}

namespace eventbus {

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

text* make_event_key(StringInfo words) {
    constexpr int hash_room = 17;
    char* text_begin = words->data + VARHDRSZ;
    int length = words->len - VARHDRSZ;
    if (length > longest_key) {
        uint64 hash = hash_bytes_extended(reinterpret_cast<unsigned char*>(text_begin), length, 0);
        words->len = VARHDRSZ + pg_mbcliplen(text_begin, length, longest_key - hash_room);
        appendStringInfo(words, "~%016lx", static_cast<unsigned long>(hash));
    }
    SET_VARSIZE(words->data, words->len);
    return reinterpret_cast<text*>(words->data);
}

void append_topic_word(StringInfo topic, const char* name) {
    for (const char* c = name; *c != '\0'; ++c) {
        bool foreign = static_cast<unsigned char>(*c) < 0x20 || strchr(".*#+\x7f", *c) != nullptr;
        appendStringInfoChar(topic, foreign ? '_' : *c);
    }
}

}  // namespace eventbus
