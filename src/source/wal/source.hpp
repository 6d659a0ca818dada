// What it is: a replication slot as a source of events: decoded in this process, a few milliseconds at a time.
// Who calls it: the decoder of a broker, for its routes from the WAL.
// Never: waits, or leaves a transaction open between calls; hands on what a reader of the database cannot see yet.
#pragma once

#include "core/event_id.hpp"
#include "postgres/steady.hpp"
#include "source/wal/batch.hpp"

extern "C" {
#include "access/xlogdefs.h"
#include "nodes/pg_list.h"
}

namespace eventbus::wal {

// "What commits before `lsn`, and of what commits there the first `number` changes."
using Position = EventId;

// Which changes and messages are asked for at all, and how rows are written, in the words of the output plugin's
// options; nullptr: not said.
struct Selection {
    const char* tables;
    const char* publication;
    const char* operations;
    const char* messages;
    const char* format;  // also "row": the payload is the row alone
    bool local_only;     // not what replication has written
};
inline constexpr const char* Selection::*selection_texts[] = {
    &Selection::tables, &Selection::publication, &Selection::operations, &Selection::messages, &Selection::format};
// Errors where it cannot be read.
void check_selection(const Selection& selection);

// A route, as the source sees it.
struct Taker {
    Selection selection;
    void* context;
    bool (*wants)(void* context, std::string_view topic);
    Position from;       // what is not behind it is left out,
    Position past_from;  // but for what is behind this: parked keys of the route may still want it
};

// What is known of failures to make events; the sender's, for the source in which they happen does not outlive them.
struct Failures {
    List* tables;         // OIDs of those of which a change failed: theirs are looked at with care
    int64 change;         // that last failed of something that should pass, like a shortage of memory,
    int attempts;         // how often it did,
    SteadyTime since;     // since when,
    bool condemned;       // and whether that is enough
    XLogRecPtr record;    // where PostgreSQL's own decoding failed,
    int record_attempts;  // how often,
    SteadyTime record_since;
    XLogRecPtr given_up;  // the commit of a transaction that it cannot decode
    bool unstreamed;      // transactions are not decoded before they commit: who fails then can be told
    char words[512];      // what was wrong with it
};

enum class State : unsigned char {
    closed,
    starting,  // the slot is being made
    running,
};

struct Source;

// Makes the slot, or takes the one that is there. Takers, failures and batch are its until the process ends. Errors
// where the server has no room for a slot or is not set to have any.
// leave_if_told() is called with each change: it ends the process where that is wanted.
Source* open_source(const char* slot, bool exists, List* takers, Failures* failures, Batch* batch, MemoryContext memory,
                    void (*leave_if_told)());

State state_of(const Source* source);
// Whom the slot waits for while it is made, for people to read; empty: nobody.
const char* words_of(const Source* source);

// After an error: the table, schema and name, whose change could not be made an event; nullptr: it was not that.
char* failed_table(const Source* source);
// After an error in reading: notes what failed. True where reading can continue at once, and will get further.
bool note_failure(Source* source, const ErrorData* error);

// The change has failed of what passes, or should; the sender notes what it has no memory for. Returns
// whether that is enough: it is given without its payload from now on.
bool note_attempt(Failures* failures, int64 change, int sqlstate);

// Reads on, for a few milliseconds or until the batch has so many bytes. Returns true if there may be more at once.
bool step(Source* source, Size bytes);
// How far the WAL has been read; what was read last may not be with the takers as a whole yet.
XLogRecPtr read_by_now(const Source* source);
// The slot's restart_lsn moves to a record of running transactions. It remembers one at a time, until what was found
// before *next has been confirmed, and passes the others by; *next is 0 where it remembers none.
void look_at_place(XLogRecPtr* from, XLogRecPtr* next);
// Everything before it is in the batches.
Position found_by_now(const Source* source);
// When the transaction was committed that was read last; 0: none was.
TimestampTz committed_by_now(const Source* source);
bool is_handing_on(const Source* source);
// Whether everything that was found can be seen by now; where something is unseen, it wants a transaction with an
// active snapshot.
bool has_unseen(const Source* source);
bool all_is_visible(Source* source);
TransactionId first_unseen(const Source* source);  // of which that is not known

// The slot need not keep what commits before. Returns up to where it does not.
XLogRecPtr confirm(const Source* source, XLogRecPtr lsn);

}  // namespace eventbus::wal
