// What it is: how a change that has been found becomes events: counted, shown to those who may want it, given to them.
// Who calls it: the callbacks in decode.cpp, shapes.cpp for changes of rows, messages.cpp.
// Never: is seen outside of this room.
#pragma once

#include "decoder/changes.hpp"
#include "wal/source_state.hpp"

namespace eventbus::wal {

// What takers with the same selection have in common: the decoder's plans of tables, and one payload for all.
struct Shape {
    decoder::Decoder decoder;  // the first member: the decoder's callbacks know nothing else of us
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

// A text in the database's encoding; brokers get UTF-8.
std::string_view utf8_of(std::string_view text);

// A change, and how it is given to those who take it.
class Found {
 public:
    Found(Source* source, XLogRecPtr change);
    void give(int taker, Event* event);
    // The payload is an envelope.
    void stamped(bool is) { stamped_ = is; }
    // All have been asked.
    void done();

 private:
    Source* source_;
    int64 id_;
    bool given_ = false;
    bool stamped_ = false;
};

// Lets each shape's decoder look at the change.
template <class Show>
void show_to_shapes(Source* source, Found* found, Show show) {
    void* plugins = source->context->output_plugin_private;
    source->found_now = found;
    ListCell* cell;
    foreach (cell, source->shapes) {
        auto* shape = static_cast<Shape*>(lfirst(cell));
        shape->decoder.context = source->context;
        source->context->output_plugin_private = &shape->decoder;
        show();
    }
    source->context->output_plugin_private = plugins;
    source->found_now = nullptr;
    found->done();
}

}  // namespace eventbus::wal
