// What it is: leaving events out: the log is full, and what a route has not delivered of its oldest part has to go.
// Who calls it: the dispatcher.
// Never: waits for what is under way: it counts as left out, whatever becomes of it.
#include <algorithm>

#include "delivery/route_queue.hpp"

namespace eventbus::delivery {

// The route may not have come to all of a chunk, nor to those before it, which may stay: a transaction that was still
// running when its part of the log was read is lent behind what is younger. So what is still to come is counted here,
// and passed over when the route comes to it.
std::uint64_t RouteQueue::leave_out(const std::vector<Place>& chunks) {
    std::uint64_t count = 0;
    for (const auto& chunk : chunks) {
        for (auto at = std::max(chunk, next_); const Event* event = feed_->at(at); ++at.index) {
            if (at.chunk != chunk.chunk) break;
            if (would_take(*event, at) && !was_settled(event->id)) ++count;
        }
    }
    for (const auto& chunk : chunks)
        if (chunk.chunk >= next_.chunk && !is_left_out(chunk)) left_out_.push_back(chunk.chunk);
    std::sort(left_out_.begin(), left_out_.end());
    seek();

    const auto end = next_number();
    for (auto number = base_; number < end; ++number) {
        if (number < base_) continue;  // those that are done go in one stroke
        auto& it = item(number);
        if (it.state == State::done || it.left_out) continue;
        const Place chunk{it.place.chunk, 0};
        if (!std::binary_search(chunks.begin(), chunks.end(), chunk)) continue;
        ++count;
        if (it.state == State::open) {
            it.left_out = true;
        } else {
            done(number);
        }
    }
    context_.report.moved = true;
    return count;
}

bool RouteQueue::is_left_out(Place place) const {
    return std::binary_search(left_out_.begin(), left_out_.end(), place.chunk);
}

}  // namespace eventbus::delivery
