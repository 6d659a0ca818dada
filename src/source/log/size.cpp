#include "source/log/size.hpp"

#include <algorithm>

#include "postgres/steady.hpp"

extern "C" {
#include "access/genam.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"
}

namespace eventbus::log {

namespace {

// What this process knows where nobody keeps count for all: others add meanwhile.
constexpr int64 own_growth_before_look = 256 * 1024;
constexpr int64 own_age_before_look_us = 100000;
struct {
    int64 bytes = -1;
    int64 grown = 0;
    SteadyTime looked_at = 0;
} mine;

int64 main_bytes(Relation rel) {
    return static_cast<int64>(RelationGetNumberOfBlocks(rel)) * BLCKSZ;
}

}  // namespace

int64 bytes_of(Relation segment) {
    return main_bytes(segment) + toast_bytes_of(segment);
}

int64 toast_bytes_of(Relation segment) {
    if (!OidIsValid(segment->rd_rel->reltoastrelid)) return 0;
    Relation toast = table_open(segment->rd_rel->reltoastrelid, AccessShareLock);
    int64 bytes = main_bytes(toast);
    List* indexes = RelationGetIndexList(toast);
    ListCell* cell;
    foreach (cell, indexes) {
        Relation index = index_open(lfirst_oid(cell), AccessShareLock);
        bytes += main_bytes(index) - BLCKSZ;  // an empty one has its first page all the same
        index_close(index, AccessShareLock);
    }
    list_free(indexes);
    table_close(toast, AccessShareLock);
    return bytes;
}

int64 toast_growth(Relation segment, std::atomic<int64>* known, int64 expected) {
    int64 now = toast_bytes_of(segment);
    int64 before = known->exchange(now);
    return before < 0 ? expected : now - before;
}

int64 measure() {
    int64 bytes = 0;
    for (Oid segment : relations().segments) {
        if (!ConditionalLockRelationOid(segment, AccessShareLock)) return -1;
        Relation rel = table_open(segment, NoLock);
        bytes += bytes_of(rel);
        table_close(rel, AccessShareLock);
    }
    return bytes;
}

int64 measured_size(SharedPlace* place) {
    int64 bytes = measure();
    if (place != nullptr) {
        if (bytes >= 0) place->bytes = bytes;
        return std::max<int64>(bytes, place->bytes);
    }
    if (bytes >= 0) {
        mine.bytes = bytes;
        mine.grown = 0;
        mine.looked_at = steady_now();
    }
    return mine.bytes;
}

int64 known_size(SharedPlace* place) {
    if (place != nullptr) {
        int64 bytes = place->bytes.load(std::memory_order_relaxed);
        return bytes >= 0 ? bytes : measured_size(place);
    }
    if (mine.bytes < 0 || mine.grown > own_growth_before_look || steady_now() - mine.looked_at > own_age_before_look_us)
        return measured_size(nullptr);
    return mine.bytes + mine.grown;
}

void count_growth(SharedPlace* place, int64 bytes) {
    if (place != nullptr)
        place->bytes.fetch_add(bytes, std::memory_order_relaxed);  // unknown stays far below 0
    else
        mine.grown += bytes;
}

}  // namespace eventbus::log
