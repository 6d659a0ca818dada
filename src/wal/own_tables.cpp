// What it is: tables of ours that the decoder has looked at as they were, and that the process is to see as they are.
// Who calls it: the decoder's callbacks note them, whoever ends a stretch of decoding forgets them.
// Never: leaves one for SPI to use: after two rewrites (VACUUM FULL) it would be read and written in a file of before.
//
// The decoder loads the table of each change under a snapshot of the change's time, into the relation cache that all of
// the process uses. What was said of the table since has been heard already, and nobody says it again.
#include <algorithm>

#include "wal/source_state.hpp"

extern "C" {
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "storage/sinval.h"
#include "utils/inval.h"
#include "utils/rel.h"
}

namespace eventbus::wal {

namespace {

constexpr int most = 32;
Oid own_schema;
Oid noted[most];
int count;

void note(Oid table) {
    if (!OidIsValid(table) || std::find(noted, noted + count, table) != noted + count) return;
    if (count < most) noted[count++] = table;
}

}  // namespace

void note_table(Relation table) {
    if (!OidIsValid(own_schema)) own_schema = get_namespace_oid("eventbus", true);
    if (RelationGetNamespace(table) != own_schema) return;
    note(RelationGetRelid(table));
    note(table->rd_rel->reltoastrelid);
}

void forget_tables() {
    if (count == most) InvalidateSystemCaches();
    for (; count > 0; --count) {
        SharedInvalidationMessage message = {};
        message.rc.id = SHAREDINVALRELCACHE_ID;
        message.rc.dbId = MyDatabaseId;
        message.rc.relId = noted[count - 1];
        LocalExecuteInvalidationMessage(&message);
    }
}

}  // namespace eventbus::wal
