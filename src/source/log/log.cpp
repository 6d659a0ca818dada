// What it is: finding the log's relations, and reading which segment is current.
// Who calls it: the rest of the log room.
// Never: takes a lock that outlives its use, but for the one that keeps a relation from being dropped.
#include "source/log/log.hpp"

#include "postgres/compat.hpp"

extern "C" {
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/namespace.h"
#include "commands/sequence.h"
#include "miscadmin.h"
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

bool lock_if_free(Oid relation, LOCKMODE mode) {
    for (int attempt = 0; attempt < 20; ++attempt) {
        if (ConditionalLockRelationOid(relation, mode)) return true;
        CHECK_FOR_INTERRUPTS();
        pg_usleep(500L);
    }
    return false;
}

namespace {

// A sequence's only tuple, on its page.
struct SequencePage {
    Relation rel;
    Buffer buffer;
    HeapTupleHeader tuple;
    uint32 length;
    Form_pg_sequence_data data;
};

// Read as nextval reads it: from its page, outside of any snapshot, so that everybody sees a change at the same moment.
SequencePage open_sequence(Oid oid, LOCKMODE table_lock, int page_lock) {
    SequencePage open;
    open.rel = relation_open(oid, table_lock);
    open.buffer = ReadBuffer(open.rel, 0);
    LockBuffer(open.buffer, page_lock);
    Page page = BufferGetPage(open.buffer);
    ItemId item = PageGetItemId(page, FirstOffsetNumber);
    open.tuple = reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item));
    open.length = ItemIdGetLength(item);
    open.data = reinterpret_cast<Form_pg_sequence_data>(reinterpret_cast<char*>(open.tuple) + open.tuple->t_hoff);
    return open;
}

FormData_pg_sequence_data read_sequence(Oid oid) {
    SequencePage open = open_sequence(oid, AccessShareLock, BUFFER_LOCK_SHARE);
    FormData_pg_sequence_data data = *open.data;
    UnlockReleaseBuffer(open.buffer);
    relation_close(open.rel, AccessShareLock);
    return data;
}

}  // namespace

// nextval many times, under one lock of the page.
int64 take_event_ids(const Relations& log, int count) {
    constexpr int64 ahead = 32;  // as nextval: what a crash may skip saves a record each time
    SequencePage open = open_sequence(log.event_id, RowExclusiveLock, BUFFER_LOCK_EXCLUSIVE);
    Page page = BufferGetPage(open.buffer);
    int64 first = open.data->is_called ? open.data->last_value + 1 : open.data->last_value;
    int64 last = first + count - 1;
    int64 left = open.data->log_cnt - count;
    bool logged = left >= 0 && open.data->is_called && PageGetLSN(page) > GetRedoRecPtr();

    START_CRIT_SECTION();
    open.data->is_called = true;
    MarkBufferDirty(open.buffer);
    if (!logged) {
        left = ahead;
        if (RelationNeedsWAL(open.rel)) {
            open.data->last_value = last + left;
            open.data->log_cnt = 0;
            xl_seq_rec record = compat::sequence_record(open.rel);
            XLogBeginInsert();
            XLogRegisterBuffer(0, open.buffer, REGBUF_WILL_INIT);
            XLogRegisterData(reinterpret_cast<char*>(&record), sizeof record);
            XLogRegisterData(reinterpret_cast<char*>(open.tuple), open.length);
            XLogRecPtr lsn = XLogInsert(RM_SEQ_ID, XLOG_SEQ_LOG);
            PageSetLSN(page, lsn);
        }
    }
    open.data->last_value = last;
    open.data->log_cnt = left;
    END_CRIT_SECTION();
    UnlockReleaseBuffer(open.buffer);
    relation_close(open.rel, NoLock);
    return first;
}

int64 last_event_id(const Relations& log) {
    FormData_pg_sequence_data data = read_sequence(log.event_id);
    return data.is_called ? data.last_value : data.last_value - 1;
}

int64 current_generation(const Relations& log) {
    return read_sequence(log.generation).last_value;
}

}  // namespace eventbus::log
