// What it is: appending one event to the current segment, below the SQL executor.
// Who calls it: intake.
// Never: overtakes events that wait in memory: their order is the order of publishing.
#include "source/log/form_tuple.hpp"
#include "source/log/size.hpp"
#include "source/log/tail.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/heaptoast.h"
#include "commands/sequence.h"
}

namespace eventbus::log {

namespace {

bool appended = false;

// The tuple that refers to values stored apart.
HeapTuple store_apart(Relation rel, HeapTuple tuple, SharedPlace* place, int segment) {
    // Before it is there, so that those who publish large values at the same time know of each other.
    int64 expected = tuple->t_len;
    count_growth(place, expected);
    tuple = heap_toast_insert_or_update(rel, tuple, nullptr, HEAP_INSERT_NO_LOGICAL);
    if (place != nullptr) count_growth(place, toast_growth(rel, &place->toast[segment], expected) - expected);
    return tuple;
}

}  // namespace

int64 append(const NewEvent& event) {
    write_pending();
    const Relations& log = relations();

    // The id before the place: what was published before is then never behind what is published after.
    int64 id = nextval_internal(log.event_id, false);
    int segment = lock_current_segment(log, event.place);

    HeapTupleData made;
    made.t_len = static_cast<uint32>(tuple_size(event));
    made.t_data = static_cast<HeapTupleHeader>(palloc(made.t_len));
    form_tuple(event, id, GetCurrentTimestamp(), made.t_data, made.t_len);

    // The lock stays to the end of the transaction: it is what makes rotation safe.
    Relation rel = table_open(log.segments[segment], NoLock);
    made.t_tableOid = RelationGetRelid(rel);
    ItemPointerSetInvalid(&made.t_self);
    HeapTuple tuple = is_large(made.t_len) ? store_apart(rel, &made, event.place, segment) : &made;
    put_at_tail(rel, tuple, 1, event.place, segment, true);
    table_close(rel, NoLock);
    if (tuple != &made) heap_freetuple(tuple);
    pfree(made.t_data);
    note_appended();
    return id;
}

bool appended_in_this_transaction() {
    return appended;
}
void note_appended() {
    appended = true;
}
void forget_appended() {
    appended = false;
}

}  // namespace eventbus::log
