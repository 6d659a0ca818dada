// What it is: one route's suspects: events that were under way when links broke, offered alone, judged and absolved.
// Who calls it: the dispatcher, and the route queue where a link has broken.
// Never: finds an event guilty because a broker is down: somebody else's event has to arrive on the same link.
#include <limits>

#include "delivery/route_queue.hpp"

namespace eventbus::delivery {

bool RouteQueue::is_suspect(const Item& it) const {
    return it.suspicion.breaks >= context_.limits.suspect_after;
}

void RouteQueue::suspect(std::uint64_t number) {
    auto& it = item(number);
    it.state = State::suspect;
    context_.any_suspects = true;
    suspects_.insert({it.suspicion, number});
}

// Of those that may be offered, the one that was under way at the fewest breaks, and the oldest of these.
const Suspicion* RouteQueue::first_suspect() {
    while (may_test()) {
        const auto& [suspicion, number] = *suspects_.begin();
        const auto* it = find(number);
        if (it != nullptr && it->state == State::suspect && it->suspicion == suspicion) return &suspicion;
        suspects_.erase(suspects_.begin());
    }
    return nullptr;
}

std::size_t RouteQueue::offer_suspect(broker::Driver& driver) {
    const auto first = *suspects_.begin();
    suspects_.erase(suspects_.begin());
    const auto outcome = try_offer(first.second, driver, stands());
    if (outcome == Offer::full) {
        suspects_.insert(first);
        window_full_ = true;
    }
    return outcome == Offer::taken ? 1 : 0;
}

// The link broke while the event was under way.
void RouteQueue::broke(std::uint64_t number) {
    auto& it = item(number);
    auto& caution = context_.caution;
    const bool alone = caution.under_test == 1;
    const bool was_guilty = it.suspicion.blame == Blame::guilty;
    if (it.suspicion.breaks < std::numeric_limits<std::uint16_t>::max()) ++it.suspicion.breaks;
    if (!alone || it.suspicion.blame == Blame::none) {
        if (alone && caution.delivered > 0) it.suspicion.blame = Blame::accused;
        come_back(number);
        return;
    }
    auto& more = extra(it);
    const bool has_words = more.trial.begun != 0;  // it was refused before, in the broker's own words
    const auto reason =
        has_words ? more.reason : "the connection broke each time this event was offered: " + caution.reason;
    if (!has_words) note_error(it, reason);
    EventIdText id;
    if (was_guilty) {
        caution.expected = true;
    } else {
        it.suspicion.blame = Blame::guilty;
        caution.culprit = it.event->id;
        if (it.refused == 0) more.backoff = Backoff(context_.limits.event_first, context_.limits.event_most);
        if (guilty_++ == 0) {
            context_.notice(Notice::Level::warning,
                            "route \"" + route_->name + "\" to " + context_.broker_shown + ": event " +
                                std::string(to_text(it.event->id, id)) +
                                " breaks the connection each time it is offered: " + caution.reason +
                                "; it is tried again alone, others continue",
                            "Raise the broker's limit, or set max_attempts on the route, which makes such events dead "
                            "letters once the broker takes others in between.");
        }
    }
    if (caution.delivered > 0 && caution.delivered != context_.delivered_before) {
        ++it.refused;
        ++more.trial.counted;
    }
    wait(number, reason, Remedy::retry);
}

// The culprit is found: the others were only there, but for the same event on another route.
void RouteQueue::absolve(const EventId& culprit) {
    for (auto number = base_; number < next_number(); ++number) {
        auto& it = item(number);
        if (it.suspicion.blame != Blame::none || (it.state == State::suspect && it.event->id == culprit)) continue;
        it.suspicion = {};
        if (it.state != State::suspect) continue;
        it.state = State::queued;
        if (auto* line = line_of(it)) {
            advance(*line, *it.event->key);
        } else {
            activate(number);
        }
    }
}

}  // namespace eventbus::delivery
