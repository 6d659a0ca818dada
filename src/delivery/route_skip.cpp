// What it is: leaving events out: the log is full, and what a route has not delivered of its oldest part has to go.
// Who calls it: the dispatcher.
// Never: waits for what is under way: it counts as left out, whatever becomes of it.
#include "delivery/route_queue.hpp"

namespace eventbus::delivery {

std::uint64_t RouteQueue::leave_out(Place until) {
    std::uint64_t count = 0;
    while (next_event_ != nullptr && next_ < until) {
        if (!was_settled(next_event_->id)) ++count;
        ++next_.index;
        seek();
    }
    const auto end = next_number();
    for (auto number = base_; number < end; ++number) {
        if (number < base_) continue;  // those that are done go in one stroke
        auto& it = item(number);
        if (!(it.place < until)) break;
        if (it.state == State::done || it.left_out) continue;
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

}  // namespace eventbus::delivery
