// What it is: what differs between PostgreSQL 15, 16, 17 and 18. The only file with PG_VERSION_NUM in it.
// Who calls it: host rooms.
// Never: holds logic of ours; it only gives one name to what has several.
#pragma once

#include <fcntl.h>

#include <algorithm>

#include "postgres/prelude.hpp"

extern "C" {
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_proc.h"
#include "commands/sequence.h"
#include "common/relpath.h"
#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"
#include "pgstat.h"
#include "port/pg_iovec.h"
#include "postmaster/autovacuum.h"
#include "replication/logical.h"
#include "replication/message.h"
#include "replication/reorderbuffer.h"
#include "replication/slot.h"
#include "storage/fd.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/wait_event.h"
}

#if PG_VERSION_NUM < 150000
#error "pg_eventbus needs PostgreSQL 15 or newer"
#endif

namespace eventbus::compat {

inline bool is_autovacuum() {
#if PG_VERSION_NUM >= 170000
    return AmAutoVacuumWorkerProcess();
#else
    return IsAutoVacuumWorkerProcess();
#endif
}

// The file behind a relation; changes when the relation is truncated or rewritten.
inline uint32 relation_file(Relation rel) {
#if PG_VERSION_NUM >= 160000
    return rel->rd_locator.relNumber;
#else
    return rel->rd_node.relNode;
#endif
}

// What a WAL record of a sequence begins with.
inline xl_seq_rec sequence_record(Relation sequence) {
#if PG_VERSION_NUM >= 160000
    return {sequence->rd_locator};
#else
    return {sequence->rd_node};
#endif
}

#if PG_VERSION_NUM < 160000
// Writes blocks of zeros from `first` on into a file of the main fork that is there already.
inline void write_zeros(Relation rel, BlockNumber first, int count) {
    static PGAlignedBlock zeros;
    iovec blocks[PG_IOV_MAX];
    std::fill_n(blocks, count, iovec{zeros.data, BLCKSZ});
    char* path = relpathperm(rel->rd_node, MAIN_FORKNUM);
    if (first >= RELSEG_SIZE) path = psprintf("%s.%u", path, first / RELSEG_SIZE);
    int file = OpenTransientFile(path, O_RDWR | PG_BINARY);
    ssize_t written = -1;
    if (file >= 0) {
        pgstat_report_wait_start(WAIT_EVENT_DATA_FILE_EXTEND);
        errno = ENOSPC;  // where less is written without a reason
        written = pg_pwritev_with_retry(file, blocks, count, static_cast<off_t>(first % RELSEG_SIZE) * BLCKSZ);
        pgstat_report_wait_end();
    }
    if (written != static_cast<ssize_t>(count) * BLCKSZ)
        ereport(ERROR, (errcode_for_file_access(), errmsg("could not extend file \"%s\": %m", path),
                        errhint("Check free disk space.")));
    CloseTransientFile(file);
}
#endif

// Adds up to `most` blocks to the main fork and returns how many; pinned, locked exclusively and initialised as empty
// heap pages. PostgreSQL 15 adds one at a time; a write of several costs little more, so here it is done past the
// storage manager, which asks the file for its length whenever it wants to know.
inline int extend(Relation rel, Buffer* pages, int most) {
#if PG_VERSION_NUM >= 160000
    uint32 added;
    ExtendBufferedRelBy(BMR_REL(rel), MAIN_FORKNUM, nullptr, EB_LOCK_FIRST, static_cast<uint32>(most), pages, &added);
    int count = std::min(static_cast<int>(added), most);  // it is not more, but a compiler cannot know
    for (int i = 1; i < count; ++i) LockBuffer(pages[i], BUFFER_LOCK_EXCLUSIVE);
#else
    LockRelationForExtension(rel, ExclusiveLock);
    BlockNumber first = RelationGetNumberOfBlocks(rel);
    BlockNumber written = first % RELSEG_SIZE;  // of the last file, if there is one
    int fit = written == 0 ? 1 : static_cast<int>(RELSEG_SIZE - written);
    int count = std::min({most, fit, PG_IOV_MAX, NBuffers / MaxBackends});
    if (count > 1) {
        // Locked before they are in the file, so nobody else finds them first.
        for (int i = 0; i < count; ++i)
            pages[i] =
                ReadBufferExtended(rel, MAIN_FORKNUM, first + static_cast<BlockNumber>(i), RBM_ZERO_AND_LOCK, nullptr);
        write_zeros(rel, first, count);
    } else {
        count = 1;
        pages[0] = ReadBufferExtended(rel, MAIN_FORKNUM, P_NEW, RBM_ZERO_AND_LOCK, nullptr);
    }
    UnlockRelationForExtension(rel, ExclusiveLock);
#endif
    for (auto i = count; i-- > 0;) {
        Page page = BufferGetPage(pages[i]);
        if (!PageIsNew(page)) continue;  // on 16 and newer somebody may have found it first
        PageInit(page, BufferGetPageSize(pages[i]), 0);
        MarkBufferDirty(pages[i]);
    }
    return static_cast<int>(count);
}

// A process's place in the array of processes: stable while it lives, and enough to find its latch.
inline int my_proc_number() {
#if PG_VERSION_NUM >= 170000
    return MyProcNumber;
#else
    return MyProc->pgprocno;
#endif
}

// Tells transactions of this process apart.
inline LocalTransactionId my_local_transaction() {
#if PG_VERSION_NUM >= 170000
    return MyProc->vxid.lxid;
#else
    return MyProc->lxid;
#endif
}

inline Latch* latch_of(int proc_number) {
    return &ProcGlobal->allProcs[proc_number].procLatch;
}

inline bool owns_database(Oid database, Oid role) {
#if PG_VERSION_NUM >= 160000
    return object_ownercheck(DatabaseRelationId, database, role);
#else
    return pg_database_ownercheck(database, role);
#endif
}

inline bool owns_relation(Oid relation, Oid role) {
#if PG_VERSION_NUM >= 160000
    return object_ownercheck(RelationRelationId, relation, role);
#else
    return pg_class_ownercheck(relation, role);
#endif
}

inline bool may_execute(Oid function, Oid role) {
#if PG_VERSION_NUM >= 160000
    return object_aclcheck(ProcedureRelationId, function, role, ACL_EXECUTE) == ACLCHECK_OK;
#else
    return pg_proc_aclcheck(function, role, ACL_EXECUTE) == ACLCHECK_OK;
#endif
}

// Whether CREATE TRIGGER … TRUNCATE takes a foreign table.
#if PG_VERSION_NUM >= 160000
inline constexpr bool foreign_tables_have_truncate_triggers = true;
#else
inline constexpr bool foreign_tables_have_truncate_triggers = false;
#endif

inline Node* mutate_expression(Node* node, Node* (*mutator)(Node*, void*), void* context) {
#if PG_VERSION_NUM >= 160000
    return expression_tree_mutator(node, mutator, context);
#else  // declared without parameters, as C had it
    return expression_tree_mutator(node, reinterpret_cast<Node* (*)()>(reinterpret_cast<void*>(mutator)), context);
#endif
}

inline WaitEventSet* create_wait_event_set(int events) {
#if PG_VERSION_NUM >= 170000
    return CreateWaitEventSet(nullptr, events);
#else
    return CreateWaitEventSet(TopMemoryContext, events);
#endif
}

// The name under which pg_stat_activity shows a wait of ours; 15 and 16 know only "Extension".
inline uint32 wait_event(const char* name) {
#if PG_VERSION_NUM >= 170000
    return WaitEventExtensionNew(name);
#else
    (void)name;
    return PG_WAIT_EXTENSION;
#endif
}

// The rows of a decoded change; nullptr where it has none.
inline HeapTuple new_row(const ReorderBufferChange* change) {
#if PG_VERSION_NUM >= 170000
    return change->data.tp.newtuple;
#else
    return change->data.tp.newtuple == nullptr ? nullptr : &change->data.tp.newtuple->tuple;
#endif
}
inline HeapTuple old_row(const ReorderBufferChange* change) {
#if PG_VERSION_NUM >= 170000
    return change->data.tp.oldtuple;
#else
    return change->data.tp.oldtuple == nullptr ? nullptr : &change->data.tp.oldtuple->tuple;
#endif
}

// From 16 on the server itself keeps a client alive through what a plugin leaves out; 15 leaves that to the plugin.
#if PG_VERSION_NUM >= 160000
inline constexpr bool plugin_reports_progress = false;
#else
inline constexpr bool plugin_reports_progress = true;
#endif

// From 16 on a snapshot for decoding is kept with the transactions that were running and had changed the catalog. 15
// asks the record of running transactions instead, where decoding begins at one; it may begin at a checkpoint of a
// shutdown or a recovery as well, where only prepared ones run.
#if PG_VERSION_NUM >= 160000
inline constexpr bool snapshots_know_prepared = true;
#else
inline constexpr bool snapshots_know_prepared = false;
#endif

// A logical slot of this database that does not survive its process until ReplicationSlotPersist(). Where standbys can
// keep slots, it is one that they keep.
inline void create_logical_slot(const char* name) {
#if PG_VERSION_NUM >= 170000
    ReplicationSlotCreate(name, true, RS_EPHEMERAL, false, true, false);
#else
    ReplicationSlotCreate(name, true, RS_EPHEMERAL, false);
#endif
}

// Errors at once where another process has it.
inline void acquire_slot(const char* name) {
#if PG_VERSION_NUM >= 180000
    ReplicationSlotAcquire(name, true, true);
#else
    ReplicationSlotAcquire(name, true);
#endif
}

// Whether the standbys that synchronized_standby_slots names have all WAL up to there. What they have not, no client
// may get of a slot that goes with them, as the server's own senders do.
inline bool standbys_have(XLogRecPtr lsn) {
#if PG_VERSION_NUM >= 170000
    return !MyReplicationSlot->data.failover || StandbySlotsHaveCaughtup(lsn, DEBUG1);
#else
    (void)lsn;
    return true;
#endif
}

// Writes a logical message; returns where it ends.
inline XLogRecPtr log_message(const char* prefix, const char* content, Size size, bool transactional) {
#if PG_VERSION_NUM >= 170000
    return LogLogicalMessage(prefix, content, size, transactional, false);
#else
    return LogLogicalMessage(prefix, content, size, transactional);
#endif
}

}  // namespace eventbus::compat
