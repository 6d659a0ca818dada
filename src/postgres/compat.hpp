// What it is: what differs between PostgreSQL 15, 16, 17 and 18. The only file with PG_VERSION_NUM in it.
// Who calls it: host rooms.
// Never: holds logic of ours; it only gives one name to what has several.
#pragma once

#include "postgres/prelude.hpp"

extern "C" {
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "commands/sequence.h"
#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"
#include "replication/logical.h"
#include "replication/message.h"
#include "replication/reorderbuffer.h"
#include "replication/slot.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/wait_event.h"
}

#if PG_VERSION_NUM < 150000
#error "pg_eventbus needs PostgreSQL 15 or newer"
#endif

namespace eventbus::compat {

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

// Adds one block to the main fork; returned pinned, locked exclusively and initialised as an empty heap page.
inline Buffer extend_by_one(Relation rel) {
#if PG_VERSION_NUM >= 160000
    Buffer buffer = ExtendBufferedRel(BMR_REL(rel), MAIN_FORKNUM, nullptr, EB_LOCK_FIRST);
#else
    LockRelationForExtension(rel, ExclusiveLock);
    Buffer buffer = ReadBufferExtended(rel, MAIN_FORKNUM, P_NEW, RBM_ZERO_AND_LOCK, nullptr);
    UnlockRelationForExtension(rel, ExclusiveLock);
#endif
    PageInit(BufferGetPage(buffer), BufferGetPageSize(buffer), 0);
    MarkBufferDirty(buffer);
    return buffer;
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

// Writes a logical message; returns where it ends.
inline XLogRecPtr log_message(const char* prefix, const char* content, Size size, bool transactional) {
#if PG_VERSION_NUM >= 170000
    return LogLogicalMessage(prefix, content, size, transactional, false);
#else
    return LogLogicalMessage(prefix, content, size, transactional);
#endif
}

inline bool is_json(const char* text, int length) {
#if PG_VERSION_NUM >= 170000
    JsonLexContext* lexer =
        makeJsonLexContextCstringLen(nullptr, const_cast<char*>(text), length, GetDatabaseEncoding(), false);
#else
    JsonLexContext* lexer = makeJsonLexContextCstringLen(const_cast<char*>(text), length, GetDatabaseEncoding(), false);
#endif
    return pg_parse_json(lexer, &nullSemAction) == JSON_SUCCESS;
}

}  // namespace eventbus::compat
