// What it is: reading the log in batches: what one snapshot sees and an earlier one did not.
// Who calls it: the sender, inside short transactions; the status functions for a route's lag.
// Never: writes, keeps a lock or a snapshot between calls, or holds more in memory than one chunk.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "source/log/log.hpp"
#include "source/log/snapshot.hpp"
#include "source/stream.hpp"

namespace eventbus::log {

// The next tuple to look at.
struct Position {
    int64 generation = 0;
    BlockNumber block = 0;
    OffsetNumber offset = FirstOffsetNumber;
    auto operator<=>(const Position&) const = default;
};

// How far a route has got: everything that `done` sees is settled; of the running batch (what `batch` sees and
// `done` does not) everything before `start` is, and from there to `end` the events up to settled_id.
struct Cursor {
    XidSnapshot done;
    bool in_batch = false;
    XidSnapshot batch;
    Position start;
    Position end;
    int64 settled_id = 0;
    uint32 files[segment_count] = {};  // of the segments, in which these are places; 0: not known
    // The transaction that created the route: what it published before that is not the route's.
    uint64 creator_xid = 0;
    int64 creator_id = 0;
    // What stands in segments of earlier generations was left out: the log was full.
    int64 first_generation = 0;
};

// Where one event stands.
struct EventPlace {
    uint64 xid;   // its top-level transaction
    uint32 file;  // of the segment, while `at` holds
    Position at;
    uint64 key_mark;  // of its key; 0: it has none
};

inline uint64 mark_of(const std::optional<std::string_view>& key) {
    return key ? std::hash<std::string_view>()(*key) | 1 : 0;
}

// Drops what the cursor says of places in files that the segments no longer have.
void find_place(Cursor* cursor, const uint32* files);

// Events of one segment that were read together, in id order.
struct Chunk : source::Chunk {
    MemoryContext memory;  // holds everything of the chunk
    int64 generation;      // of the segment
    Cursor before;         // the place where the chunk begins
    Position end;          // and where it ends
};

struct Limits {
    uint32 events;
    Size bytes;
};

// Whether anybody wants an event, of which id, topic and key are known; others are passed over before their payload
// is looked at.
struct Filter {
    bool (*wanted)(void* context, const Event& event, uint64 xid, const Position& at);
    void* context;
};

struct Reader;

// The reader, and the chunks it makes, are allocated in `memory`; `place` is nullptr where nobody serves the database.
Reader* open_reader(const Cursor& cursor, const SharedPlace* place, MemoryContext memory);
Reader* clone_reader(const Reader* reader);
void close_reader(Reader* reader);

// The place where reading continues: the cursor of a route that has settled everything read so far.
const Cursor& place_of(const Reader* reader);
bool in_batch(const Reader* reader);
// Both stand between batches at the same place.
bool same_place(const Reader* a, const Reader* b);
// What the reader's running batch, or else its last one, ends with.
const XidSnapshot& horizon_of(const Reader* reader);

// Whether the reader is past the event: it has been read, or was none of its routes'. Never true too early; for an
// event of the running batch it may become so only at the batch's end.
bool has_passed(const Reader* reader, const EventId& id, const EventPlace& event);

// Somebody has rewritten a segment that was read in part: events that have been read of this batch come again. Who may
// have sent them begins again, as after a restart.
bool must_begin_again(const Reader* reader);

// These want a transaction with an active snapshot.
// Begins a batch that ends with what `snapshot`, which was taken at `taken_at` or later, sees; only between batches.
void begin_batch(Reader* reader, const XidSnapshot& snapshot, TimestampTz taken_at);
// The next events of the batch, or nullptr when there are none for now: the batch is through (in_batch() is false
// then), or a good stretch of the log held nothing for us and the caller should look after other things.
// What it returns is durable.
Chunk* read_chunk(Reader* reader, const Limits& limits, const Filter& filter);
const Event* find_in(const source::Chunk* chunk, const EventId& id);  // or nullptr

// An event that is not settled, as far as it is needed to know whose it is: id, topic and key.
struct Unsettled : Event {
    uint64 xid;  // its top-level transaction
    Position at;
    uint32 file;
};
// The segment's file, which stays the same until the transaction ends.
uint32 hold_file(int64 generation);
// Shows what one of the old segments holds that a cursor has not settled and the active snapshot sees. Continues from
// *block, which begins at 0, for at most `pages`; true when it is through.
bool scan_unsettled(const Cursor& cursor, int64 generation, BlockNumber* block, BlockNumber pages,
                    void (*visit)(void* context, const Unsettled& event), void* context);
// The place of who leaves out what stands before a generation; its snapshots are those of `cursor`.
Cursor skipped_to(const Cursor& cursor, int64 generation);
// The same for a reader.
Reader* skip_to(Reader* reader, int64 generation);

// The cursor of a route that has settled the first `index` events of the chunk.
Cursor cursor_inside(const Chunk* chunk, uint32 index);

}  // namespace eventbus::log
