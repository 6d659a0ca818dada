// What it is: the sender's answers to whoever waits: which routes have settled what is asked for, or left it out.
// Who calls it: the sender's loop, after each report; the log before it leaves events out.
// Never: looks at anything while nobody waits.
#include "sender/sender.hpp"

namespace eventbus::sender {

namespace {

counters::Answer answer_for(const counters::Wanted& wanted, std::int32_t route_id) {
    const SenderRoute* route = find_route(route_id);
    return route != nullptr ? route->source->answer(route, wanted) : counters::Answer::none;
}

}  // namespace

void answer_waiters() {
    if (counters::anybody_waits()) counters::answer_waiters(sender.database, answer_for);
}

}  // namespace eventbus::sender
