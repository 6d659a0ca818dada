#include "intake/prepared.hpp"

#include "postgres/query.hpp"
#include "source/log/log.hpp"

extern "C" {
#include "access/twophase.h"
#include "storage/lock.h"
#include "utils/lsyscache.h"
}

namespace eventbus::intake {

namespace {

TransactionId xid_of(const char* gid) {
    SPI_connect();
    PushActiveSnapshot(GetTransactionSnapshot());
    run_query("SELECT transaction FROM pg_catalog.pg_prepared_xact() WHERE gid OPERATOR(pg_catalog.=) $1",
              {Argument::of(gid)}, true);
    TransactionId xid =
        SPI_processed == 1 ? static_cast<TransactionId>(strtoul(text_at(0, 1), nullptr, 10)) : InvalidTransactionId;
    PopActiveSnapshot();
    SPI_finish();
    return xid;
}

// The process that stands for it. Nobody else can take its place while it exists.
const PGPROC* proc_of(TransactionId xid) {
    for (int i = 0; i < max_prepared_xacts; ++i)
        if (PreparedXactProcs[i].xid == xid && PreparedXactProcs[i].pid == 0) return &PreparedXactProcs[i];
    return nullptr;
}

// A lock that ShareLock conflicts with is one to write.
bool writes(const VirtualTransactionId& transaction, Oid relation) {
    LOCKTAG tag;
    SET_LOCKTAG_RELATION(tag, MyDatabaseId, relation);
    int count = 0;
    const VirtualTransactionId* writers = GetLockConflicts(&tag, ShareLock, &count);
    for (int i = 0; i < count; ++i)
        if (VirtualTransactionIdEquals(writers[i], transaction)) return true;
    return false;
}

}  // namespace

PreparedWork work_of_prepared(const char* gid) {
    const log::Relations* log = log::relations_if_any();
    if (log == nullptr || max_prepared_xacts == 0) return {};
    TransactionId xid = xid_of(gid);
    const PGPROC* proc = TransactionIdIsValid(xid) ? proc_of(xid) : nullptr;
    if (proc == nullptr) return {};
    VirtualTransactionId transaction;
    GET_VXID_FROM_PGPROC(transaction, *proc);
    PreparedWork work;
    for (Oid segment : log->segments) work.events = work.events || writes(transaction, segment);
    for (const char* name : {"broker_config", "route_config", "cursor", "dead_letter_store"}) {
        Oid relation = get_relname_relid(name, log->schema);
        work.configuration = work.configuration || (OidIsValid(relation) && writes(transaction, relation));
    }
    return work;
}

}  // namespace eventbus::intake
