// What it is: how a change that has been found becomes events: counted, shown to those who may want it, given to them.
// Who calls it: the callbacks in decode.cpp, row_events.cpp for changes of rows, messages.cpp.
// Never: is seen outside of this room.
#pragma once

#include "decoder/changes.hpp"
#include "source/wal/source_state.hpp"

namespace eventbus::wal {

// What takers with the same selection have in common: the decoder's plans of tables, and one payload for all.
struct Shape {
    decoder::Decoder decoder;  // the first member: the decoder's callbacks know nothing else of us
    Source* source;
    Selection selection;
    bool rows;    // the payload is the row alone
    int* takers;  // by number
    int taker_count;
};

inline Source* source_of(LogicalDecodingContext* context) {
    return static_cast<Source*>(context->output_writer_private);
}

inline bool wants(const Source* source, int taker, std::string_view topic) {
    auto* asked = static_cast<Taker*>(list_nth(source->takers, taker));
    return asked->wants(asked->context, topic);
}

// What has become of a change for one shape. It is given when all of it is there.
struct Made {
    Event event;         // its texts are there until `scratch` is emptied
    const bool* wanted;  // by the shape's takers; nullptr: that is not known (yet)
    bool stamped;        // the payload is an envelope
    bool done;
};

// The topic of a table's changes, and who of the shape's takers wants them; palloc'd.
const bool* takers_of_table(const Source* source, const Shape* shape, const char* schema, const char* table,
                            decoder::Operation operation, std::string_view* topic);

// failed_changes.cpp: makes a message an event. nullptr: it went well; otherwise why it cannot be made. Wants a
// transaction where messages want care, as they do once one has failed.
bool messages_want_care(const Source* source);
const char* make_message(Source* source, void (*make)(void*), void* argument);

// A change, and how it is given to those who take it.
class Found {
 public:
    Found(Source* source, XLogRecPtr lsn);
    void give(int taker, Event* event);
    // The payload is an envelope.
    void stamped(bool is) { stamped_ = is; }
    // All have been asked.
    void done();
    int64 change() const { return change_; }

 private:
    Source* source_;
    int64 change_;  // see Failures
    bool given_ = false;
    bool stamped_ = false;
};

}  // namespace eventbus::wal
