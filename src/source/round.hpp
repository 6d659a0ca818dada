// What it is: a round of a sender's loop, as far as its sources are concerned.
// Who calls it: the sender; the unit tests, with a source made of memory.
// Never: sleeps; what there is to wait for is the sender's to find out.
#pragma once

#include <span>

#include "source/source.hpp"

namespace eventbus::source {

// Sender: deliver() drives the broker and takes the report; stuck() names a route that one key blocks, or nullptr;
// write() shows and writes down what is due. Returns whether there may be more to read at once.
template <class Sender>
bool run_round(Sender& sender, std::span<Source* const> sources) {
    bool more = false;
    for (Source* source : sources) more = source->read() || more;
    sender.deliver();
    for (Source* source : sources) source->tell_room();
    for (Route* route = sender.stuck(); route != nullptr && route->source->park_key(route);) route = sender.stuck();
    for (Source* source : sources) more = source->arrange() || more;
    sender.write();
    for (Source* source : sources) source->confirm();
    return more;
}

// Chunks that the dispatcher has done with. Other: takes those of streams that are no source's.
template <class Other>
void take_back(std::span<Source* const> sources, std::span<const delivery::Report::Finished> finished, Other other) {
    for (const delivery::Report::Finished& chunk : finished) {
        bool taken = false;
        for (Source* source : sources) taken = taken || source->take_back(chunk);
        if (!taken) other(chunk);
    }
}

}  // namespace eventbus::source
