// What it is: how a route parts with what holds it up, passes over it, and takes it again.
// Who calls it: the dispatcher, as the host says.
// Never: parts with an event that the driver has.
#include <algorithm>

#include "delivery/route_queue.hpp"

namespace eventbus::delivery {

RouteQueue::RouteQueue(const RouteQueue& whole, Detour detour, DetourId number, Feed& feed, StreamId stream,
                       std::uint64_t ticket_base, std::uint64_t first_number)
    : RouteQueue(*whole.route_, whole.context_, feed, stream, ticket_base, first_number) {
    detour_ = std::make_unique<Detour>(std::move(detour));
    detour_number_ = number;
    evidence_ = whole.evidence_;
    paused_ = whole.paused_;
}

// Only the oldest event matters: it alone keeps the route's place.
bool RouteQueue::waits_for_refused() const {
    if (items_.empty() || paused_ || removed_ || stand_ == Stand::settings || detour_) return false;
    return has_waited(items_.front()) && items_.front().state != State::open;
}

// Where nothing was delivered since it was refused,
// the trouble is not its own; but a few keys may fill all that is lent, and then nobody else has had a chance.
bool RouteQueue::is_stuck(bool starved) {
    const auto& oldest = items_.front();
    starved = starved && (stands() ? next_event_ == nullptr : !has_candidate());
    const bool others_pass = delivered_ > oldest.extra->delivered_before;
    const bool others_unseen = starved && oldest.event->key && lines_.size() <= context_.limits.detours;
    const bool long_since = context_.now - oldest.extra->refused_since >= context_.limits.detour_after;
    if (!(others_pass && (long_since || starved)) && !others_unseen) return false;
    if (detours_ >= context_.limits.detours) {
        if (!told_enough_) {
            context_.notice(Notice::Level::warning,
                            shown() + ": more is refused than the " + std::to_string(detours_) +
                                " detours that a route may have; now the route waits with it",
                            "Mend what the broker complains of; see last_error in eventbus.status.");
        }
        told_enough_ = true;
        return false;
    }
    if (in_flight_ == 0 || !oldest.event->key) return true;
    for (std::size_t i = 1; i < items_.size(); ++i) {
        if (items_[i].state == State::open && items_[i].event->key == oldest.event->key) return false;
    }
    return true;
}

void RouteQueue::let_go(Item& it, Detour& into) {
    if (it.offered > 0) {
        Detour::Tried tried{it.offered, it.refused,    it.suspicion,
                            {},         it.not_before, Backoff(Backoff::Duration(0), Backoff::Duration(0)),
                            {}};
        if (it.extra) tried.trial = it.extra->trial;
        if (it.extra) tried.backoff = it.extra->backoff;
        if (it.extra) tried.reason = it.extra->reason;
        into.tried.emplace(it.event->id, std::move(tried));
    }
    if (it.suspicion.blame == Blame::guilty) --guilty_;
    it.state = State::done;
    --unsettled_;
    return_extra(it);
}

Detour RouteQueue::part() {
    constexpr std::size_t most_events = 1000;
    const Event& oldest = *items_.front().event;
    const auto since = context_.now - items_.front().extra->refused_since;
    const auto reason = items_.front().extra->reason;
    Detour detour;
    if (oldest.key) detour.key = *oldest.key;
    for (std::size_t i = 0; i < items_.size(); ++i) {
        auto& it = items_[i];
        if (it.event->key != oldest.key) continue;
        if (oldest.key && it.state == State::done) {
            detour.settled.push_back(it.event->id);
        } else if (oldest.key) {
            let_go(it, detour);
        } else if (has_waited(it) && it.state != State::open && it.state != State::done &&
                   detour.events.size() < most_events) {
            detour.events.push_back(it.event->id);
            let_go(it, detour);
        }
    }
    if (auto* line = line_of(items_.front())) {
        detour.trouble = line->trouble;
        lines_.erase(*oldest.key);
    }
    std::sort(detour.events.begin(), detour.events.end());
    std::sort(detour.settled.begin(), detour.settled.end());
    if (detours_ == 0) {
        detours_since_ = context_.now;
        context_.notice(Notice::Level::warning,
                        shown() + (oldest.key ? " has a key whose events are" : " has events that are") +
                            " refused for " + seconds_text(since) + ": " + reason +
                            "; they are tried again beside the route, which goes on without them",
                        "Mend what the broker complains of; the events of a key keep their order.");
    }
    context_.report.moved = true;
    return detour;
}

void RouteQueue::pass_over(const Detour& detour) {
    ++detours_;
    beside_.add(detour);
    seek();
    pop_done();  // what it has parted with
}

void RouteQueue::take_again(const Detour& detour) {
    beside_.end(detour, feed_->end());
    if (next_event_ == nullptr) beside_.at_end();
}

void RouteQueue::absorb(const RouteQueue& detour) {
    beside_.forget(*detour.detour_);
    delivered_ += detour.delivered_;
    dead_ += detour.dead_;
    retries_ += detour.retries_;
    last_delivered_at_ = std::max(last_delivered_at_, detour.last_delivered_at_);
    if (detour.last_error_at_ > last_error_at_) {
        last_error_at_ = detour.last_error_at_;
        last_error_ = detour.last_error_;
    }
    if (--detours_ <= context_.limits.detours / 2) told_enough_ = false;
    if (detours_ > 0) return;
    if (stands()) go_on_if_empty();
    context_.notice(
        Notice::Level::log,
        shown() + " has nothing beside it any more" +
            (detours_since_ == TimePoint{} ? std::string() : ", after " + seconds_text(context_.now - detours_since_)));
}

// What the route had done about a new event of the detour. True if it is not to be offered now.
bool RouteQueue::recall(std::uint64_t number) {
    auto& it = item(number);
    const auto id = it.event->id;
    auto& settled = detour_->settled;
    if (was_settled(id)) {
        settled.erase(std::lower_bound(settled.begin(), settled.end(), id));
        it.state = State::done;
        --unsettled_;
        pop_done();
        context_.report.moved = true;
        return true;
    }
    const auto tried = detour_->tried.extract(id);
    if (!tried) return false;
    it.offered = tried.mapped().offered;
    it.refused = tried.mapped().refused;
    it.suspicion = tried.mapped().suspicion;
    if (it.suspicion.blame == Blame::guilty) ++guilty_;
    if (it.refused == 0 && !is_suspect(it)) return false;
    it.not_before = tried.mapped().not_before;
    auto& more = extra(it);
    more.trial = tried.mapped().trial;
    more.backoff = tried.mapped().backoff;
    more.reason = std::move(tried.mapped().reason);
    go_back(number);
    return true;
}

// Before the detour came to it.
bool RouteQueue::was_settled(const EventId& id) const {
    return detour_ && std::binary_search(detour_->settled.begin(), detour_->settled.end(), id);
}

std::vector<EventId> RouteQueue::settled_ahead() const {
    auto ids = detour_->settled;
    for (std::size_t i = 0; i < items_.size(); ++i) {
        if (items_[i].state == State::done) ids.push_back(items_[i].event->id);
    }
    std::sort(ids.begin(), ids.end());
    return ids;
}

std::string RouteQueue::shown() const {
    return (detour_ ? "a detour of route \"" : "route \"") + route_->name + "\" to " + context_.broker_shown;
}

}  // namespace eventbus::delivery
