// What it is: the log's names and places: its segments, its sequences, which segment is current.
// Who calls it: intake (to append), the sender (to read), the keeper (to rotate).
// Never: decides who may read or write; the SQL functions' grants do.
#pragma once

#include <atomic>

#include "postgres/prelude.hpp"

extern "C" {
#include "storage/lockdefs.h"
}

namespace eventbus::log {

inline constexpr int segment_count = 4;

// Columns of a segment. The first three are fixed-width and never null: the reader takes them from the raw tuple. A
// tuple ends with its last column that is not null.
enum Column {
    column_id,
    column_xid,
    column_published_at,
    column_topic,
    column_key,
    column_json,
    column_text,
    column_captured_by,  // not null: a change of a row or DDL; its headers want pg-txid and pg-user
    column_headers,
    column_content_type,  // null: application/json
    column_bytes,
    column_count,
};

// Where the log lives in this database.
struct Relations {
    Oid schema;
    Oid segments[segment_count];
    Oid event_id;    // the sequence of event ids
    Oid generation;  // the sequence whose value is the current segment's generation
};

// The relations of this database's log, from a cache that DDL invalidates; errors where the extension is absent.
const Relations& relations();
// The same, or nullptr where the extension is absent.
const Relations* relations_if_any();

// For who does not wait: a lock that is free now, or within moments.
bool lock_if_free(Oid relation, LOCKMODE mode);

// The highest event id that has been given out; 0: none.
int64 last_event_id(const Relations& log);

// Gives out `count` event ids in a row; returns the first.
int64 take_event_ids(const Relations& log, int count);

// Generation g lives in segment g % segment_count. The number begins with segment_count, so that there is one for
// each segment, and only rises, outside of transactions.
int64 current_generation(const Relations& log);
inline int64 oldest_generation(const Relations& log) {  // in use
    return current_generation(log) - segment_count + 1;
}
inline int segment_of(int64 generation) {
    return static_cast<int>(generation % segment_count);
}

// What publishers share to find their place without looking it up: kept in shared memory for a database that is
// served, and worth nothing but time. Unknown after a restart.
struct SharedPlace {
    std::atomic<int64> generation;                  // the current one; unknown_generation
    std::atomic<BlockNumber> tails[segment_count];  // the last page of each segment; InvalidBlockNumber: unknown
    std::atomic<int64> bytes;                       // what the log takes on disk; negative: unknown
    std::atomic<int64> toast[segment_count];        // of it, for the segment's large values; negative: unknown

    void forget() {
        generation = unknown_generation;
        for (auto& tail : tails) tail = InvalidBlockNumber;
        bytes = unknown_bytes;
        for (auto& size : toast) size = unknown_bytes;
    }
    static constexpr int64 unknown_generation = -1;
    static constexpr int64 unknown_bytes = PG_INT64_MIN / 2;  // however much is added to it
};

struct NewEvent {
    const text* topic;
    const text* key;  // or nullptr
    Datum headers;    // jsonb; has_headers says whether
    bool has_headers;
    const text* content_type;  // nullptr: application/json
    Column payload_column;     // column_json, column_text (without a content type: with phrases) or column_bytes
    Datum payload;             // detoasted
    const text* captured_by;   // the role that made the change, or nullptr
    SharedPlace* place;        // nullptr where nobody serves this database
};

// Appends one event in the current transaction; returns its id.
int64 append(const NewEvent& event);
// The same for one of many that a statement makes, whose id nobody asks for. It may wait in memory, until:
void append_later(const NewEvent& event);
// … it is written. Due before anything that could tell the difference: another command, a look at the log, the end of
// a statement or (sub)transaction.
void write_pending();
// The same when a subtransaction has begun, and what waits is its parent's.
void write_pending_of_parent();
// The (sub)transaction that made them is rolled back.
void forget_pending();

// True at commit time if this transaction appended something.
bool appended_in_this_transaction();
void note_appended();
void forget_appended();

}  // namespace eventbus::log
