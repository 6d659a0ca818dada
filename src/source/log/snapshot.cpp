// Who calls it: the log room.
// Never: asks the server anything but what a snapshot says.
#include "source/log/snapshot.hpp"

#include <algorithm>

extern "C" {
#include "access/transam.h"
#include "lib/stringinfo.h"
}

namespace eventbus::log {

bool finished(const XidSnapshot& snapshot, uint64 xid) {
    if (xid < snapshot.xmin) return true;
    if (xid >= snapshot.xmax) return false;
    return !std::binary_search(snapshot.running, snapshot.running + snapshot.count, xid);
}

bool same(const XidSnapshot& a, const XidSnapshot& b) {
    return a.xmin == b.xmin && a.xmax == b.xmax && a.count == b.count &&
           std::equal(a.running, a.running + a.count, b.running);
}

bool is_later(const XidSnapshot& a, const XidSnapshot& b) {
    // What begins raises xmax when it ends; what was running can only end.
    return a.xmax != b.xmax ? a.xmax > b.xmax : a.count < b.count;
}

// Snapshots carry 32-bit ids of transactions around `next`; this gives them their epoch back.
static uint64 widen(TransactionId xid, FullTransactionId next) {
    uint64 epoch = EpochFromFullTransactionId(next);
    if (xid > XidFromFullTransactionId(next)) --epoch;
    return epoch << 32 | xid;
}

XidSnapshot take_snapshot(const SnapshotData* snapshot, MemoryContext memory) {
    FullTransactionId next = ReadNextFullTransactionId();
    XidSnapshot taken;
    taken.xmax = widen(snapshot->xmax, next);
    taken.xmin = widen(snapshot->xmin, next);
    taken.running = static_cast<uint64*>(MemoryContextAlloc(memory, sizeof(uint64) * (snapshot->xcnt + 1)));
    for (uint32 i = 0; i < snapshot->xcnt; ++i) taken.running[taken.count++] = widen(snapshot->xip[i], next);
    std::sort(taken.running, taken.running + taken.count);
    // The server's xmin also covers transactions without an id; ours need not wait for them.
    taken.xmin = taken.count > 0 ? taken.running[0] : taken.xmax;
    return taken;
}

void add_running(XidSnapshot* snapshot, uint64 xid, MemoryContext memory) {
    if (!finished(*snapshot, xid)) return;
    auto* running = static_cast<uint64*>(MemoryContextAlloc(memory, sizeof(uint64) * (snapshot->count + 1)));
    std::copy(snapshot->running, snapshot->running + snapshot->count, running);
    running[snapshot->count++] = xid;
    std::sort(running, running + snapshot->count);
    pfree(snapshot->running);
    snapshot->running = running;
    snapshot->xmin = running[0];
}

XidSnapshot copy_snapshot(const XidSnapshot& snapshot, MemoryContext memory) {
    XidSnapshot copy = snapshot;
    copy.running = static_cast<uint64*>(MemoryContextAlloc(memory, sizeof(uint64) * (snapshot.count + 1)));
    std::copy(snapshot.running, snapshot.running + snapshot.count, copy.running);
    return copy;
}

void free_snapshot(XidSnapshot* snapshot) {
    if (snapshot->running != nullptr) pfree(snapshot->running);
    *snapshot = XidSnapshot();
}

char* snapshot_to_text(const XidSnapshot& snapshot) {
    StringInfoData text;
    initStringInfo(&text);
    appendStringInfo(&text, UINT64_FORMAT ":" UINT64_FORMAT ":", snapshot.xmin, snapshot.xmax);
    for (int i = 0; i < snapshot.count; ++i)
        appendStringInfo(&text, "%s" UINT64_FORMAT, i > 0 ? "," : "", snapshot.running[i]);
    return text.data;
}

XidSnapshot snapshot_from_text(const char* text, MemoryContext memory) {
    XidSnapshot snapshot;
    char* at = nullptr;
    int commas = 0;
    for (const char* c = text; *c != '\0'; ++c) commas += *c == ',';
    snapshot.running = static_cast<uint64*>(MemoryContextAlloc(memory, sizeof(uint64) * (commas + 2)));
    snapshot.xmin = strtoull(text, &at, 10);
    if (*at == ':') snapshot.xmax = strtoull(at + 1, &at, 10);
    if (*at == ':') ++at;
    while (*at >= '0' && *at <= '9') {
        snapshot.running[snapshot.count++] = strtoull(at, &at, 10);
        if (*at == ',') ++at;
    }
    return snapshot;
}

}  // namespace eventbus::log
