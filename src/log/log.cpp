// What it is: finding the log's relations, and reading which segment is current.
// Who calls it: the rest of the log room.
// Never: takes a lock that outlives its use, but for the one that keeps a relation from being dropped.
#include "log/log.hpp"

extern "C" {
#include "catalog/namespace.h"
#include "commands/sequence.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
}

namespace eventbus::log {

namespace {

Relations cache;
bool cache_valid = false;
bool callback_registered = false;

void forget_relations(Datum, Oid relation) {
    if (!cache_valid) return;
    if (relation == InvalidOid || relation == cache.event_id || relation == cache.generation) {
        cache_valid = false;
        return;
    }
    for (Oid segment : cache.segments)
        if (segment == relation) cache_valid = false;
}

bool find_relations(Relations* found) {
    found->schema = get_namespace_oid("eventbus", true);
    if (!OidIsValid(found->schema)) return false;
    found->event_id = get_relname_relid("event_id", found->schema);
    found->generation = get_relname_relid("log_generation", found->schema);
    for (int i = 0; i < segment_count; ++i) {
        char name[NAMEDATALEN];
        snprintf(name, sizeof name, "log_%d", i);
        found->segments[i] = get_relname_relid(name, found->schema);
        if (!OidIsValid(found->segments[i])) return false;
    }
    return OidIsValid(found->event_id) && OidIsValid(found->generation);
}

}  // namespace

const Relations* relations_if_any() {
    if (!cache_valid) {
        if (!callback_registered) {
            CacheRegisterRelcacheCallback(forget_relations, 0);
            callback_registered = true;
        }
        if (!find_relations(&cache)) return nullptr;
        cache_valid = true;
    }
    return &cache;
}

const Relations& relations() {
    const Relations* found = relations_if_any();
    if (found == nullptr)
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("the event log of pg_eventbus does not exist"),
                        errhint("Run CREATE EXTENSION pg_eventbus in this database.")));
    return *found;
}

// Read as nextval reads it: from its page, outside of any snapshot, so that everybody sees a change at the same moment.
static FormData_pg_sequence_data read_sequence(Oid oid) {
    Relation sequence = relation_open(oid, AccessShareLock);
    Buffer buffer = ReadBuffer(sequence, 0);
    LockBuffer(buffer, BUFFER_LOCK_SHARE);
    Page page = BufferGetPage(buffer);
    ItemId item = PageGetItemId(page, FirstOffsetNumber);
    auto header = reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item));
    auto data = *reinterpret_cast<Form_pg_sequence_data>(reinterpret_cast<char*>(header) + header->t_hoff);
    UnlockReleaseBuffer(buffer);
    relation_close(sequence, AccessShareLock);
    return data;
}

int64 last_event_id(const Relations& log) {
    FormData_pg_sequence_data data = read_sequence(log.event_id);
    return data.is_called ? data.last_value : data.last_value - 1;
}

int64 current_generation(const Relations& log) {
    return read_sequence(log.generation).last_value;
}

}  // namespace eventbus::log
