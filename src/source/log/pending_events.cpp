// What it is: events of a statement that makes many of them: they wait in memory and are written a page at a time.
// Who calls it: intake.
// Never: lets anybody see that they wait: they are written before another command, subtransaction or commit begins.
#include "postgres/compat.hpp"
#include "source/log/form_tuple.hpp"
#include "source/log/tail.hpp"

extern "C" {
#include "utils/memutils.h"
}

namespace eventbus::log {

namespace {

constexpr int most_events = 512;
constexpr Size most_bytes = 64 * 1024;
// A command that makes few events writes them one by one.
constexpr int events_before = 8;
// The clock costs a twentieth of an event, so a few share its time.
constexpr int events_a_time = 16;

struct {
    int count;
    Size used;
    char* room;  // of most_bytes
    HeapTupleData tuples[most_events];
    int segment;
    Oid segment_oid;
    SharedPlace* place;
    TimestampTz time;
} waiting;

// How many events the running command has made.
int made_by_this_command() {
    static LocalTransactionId transaction = InvalidLocalTransactionId;
    static CommandId command = InvalidCommandId;
    static int made = 0;
    LocalTransactionId now = compat::my_local_transaction();
    CommandId current = GetCurrentCommandId(true);
    if (transaction != now || command != current) made = 0;
    transaction = now;
    command = current;
    return ++made;
}

void write(bool current) {
    const Relations& log = relations();
    // Ids are given only now: who publishes meanwhile cannot depend on what these events tell, for the rows that they
    // are about are locked.
    int64 id = take_event_ids(log, waiting.count);
    for (int i = 0; i < waiting.count; ++i) set_id(waiting.tuples[i].t_data, id + i);
    Relation rel = table_open(waiting.segment_oid, NoLock);
    put_at_tail(rel, waiting.tuples, waiting.count, waiting.place, waiting.segment, current);
    table_close(rel, NoLock);
    forget_pending();
}

}  // namespace

void append_later(const NewEvent& event) {
    Size size = event.place != nullptr ? tuple_size(event) : 0;
    if (event.place == nullptr || made_by_this_command() <= events_before || is_large(size)) {
        (void)append(event);
        return;
    }

    const Relations& log = relations();
    int segment = lock_current_segment(log, event.place);
    bool fits = waiting.count < most_events && waiting.used + size <= most_bytes;
    if (!fits || waiting.segment_oid != log.segments[segment]) write_pending();
    if (waiting.room == nullptr) waiting.room = static_cast<char*>(MemoryContextAlloc(TopMemoryContext, most_bytes));
    waiting.segment = segment;
    waiting.segment_oid = log.segments[segment];
    waiting.place = event.place;

    HeapTupleData& tuple = waiting.tuples[waiting.count];
    tuple.t_len = static_cast<uint32>(size);
    tuple.t_data = reinterpret_cast<HeapTupleHeader>(waiting.room + waiting.used);
    tuple.t_tableOid = waiting.segment_oid;
    if (waiting.count % events_a_time == 0) waiting.time = GetCurrentTimestamp();
    form_tuple(event, 0, waiting.time, tuple.t_data, size);
    waiting.used += MAXALIGN(size);
    ++waiting.count;
    note_appended();
}

void write_pending() {
    if (waiting.count > 0) write(true);
}

void write_pending_of_parent() {
    if (waiting.count > 0) write(false);
}

void forget_pending() {
    waiting.count = 0;
    waiting.used = 0;
}

}  // namespace eventbus::log
