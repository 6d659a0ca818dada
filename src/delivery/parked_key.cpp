// What it is: how a route parts with what holds it up, passes over it, and takes it again.
// Who calls it: the dispatcher, as the host says.
// Never: parts with an event that the driver has.
#include <algorithm>

#include "delivery/route_queue.hpp"

namespace eventbus::delivery {

RouteQueue::RouteQueue(const RouteQueue& whole, ParkedKey parked_key, ParkedKeyId number, Feed& feed, StreamId stream,
                       std::uint64_t ticket_base, std::uint64_t first_number)
    : RouteQueue(*whole.route_, whole.context_, feed, stream, ticket_base, first_number) {
    parked_key_ = std::make_unique<ParkedKey>(std::move(parked_key));
    parked_key_number_ = number;
    evidence_ = whole.evidence_;
    paused_ = whole.paused_;
}

// Only the oldest event matters: it alone keeps the route's place.
bool RouteQueue::waits_for_refused() const {
    if (items_.empty() || paused_ || removed_ || stand_ == Stand::settings || parked_key_) return false;
    return has_waited(items_.front()) && items_.front().state != State::open;
}

// Where nothing was delivered since it was refused,
// the trouble is not its own; but a few keys may fill all that is lent, and then nobody else has had a chance.
bool RouteQueue::is_stuck(bool starved) {
    const auto& oldest = items_.front();
    starved = starved && (stands() ? next_event_ == nullptr : !has_candidate());
    const bool others_pass = delivered_ > oldest.extra->delivered_before;
    const bool others_unseen = starved && oldest.event->key && lines_.size() <= context_.limits.parked_keys;
    const bool long_since = context_.now - oldest.extra->refused_since >= context_.limits.park_after;
    if (!(others_pass && (long_since || starved)) && !others_unseen) return false;
    if (parked_keys_ >= context_.limits.parked_keys) {
        if (!told_enough_) {
            context_.notice(Notice::Level::warning,
                            shown() + ": more is refused than the " + std::to_string(parked_keys_) +
                                " parked keys that a route may have; now the route waits with it",
                            "Fix what the broker complains of; see last_error in eventbus.status.");
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

void RouteQueue::let_go(Item& it, ParkedKey& into) {
    if (it.offered > 0) {
        ParkedKey::Tried tried{it.offered, it.refused,    it.suspicion,
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

ParkedKey RouteQueue::part() {
    constexpr std::size_t most_events = 1000;
    const Event& oldest = *items_.front().event;
    const auto since = context_.now - items_.front().extra->refused_since;
    const auto reason = items_.front().extra->reason;
    ParkedKey parked_key;
    if (oldest.key) parked_key.key = *oldest.key;
    for (std::size_t i = 0; i < items_.size(); ++i) {
        auto& it = items_[i];
        if (it.event->key != oldest.key) continue;
        if (oldest.key && it.state == State::done) {
            parked_key.settled.push_back(it.event->id);
        } else if (oldest.key) {
            let_go(it, parked_key);
        } else if (has_waited(it) && it.state != State::open && it.state != State::done &&
                   parked_key.events.size() < most_events) {
            parked_key.events.push_back(it.event->id);
            let_go(it, parked_key);
        }
    }
    if (auto* line = line_of(items_.front())) {
        parked_key.trouble = line->trouble;
        lines_.erase(*oldest.key);
    }
    std::sort(parked_key.events.begin(), parked_key.events.end());
    std::sort(parked_key.settled.begin(), parked_key.settled.end());
    if (parked_keys_ == 0) {
        parked_keys_since_ = context_.now;
        context_.notice(Notice::Level::warning,
                        shown() + (oldest.key ? " has a key whose events are" : " has events that are") +
                            " refused for " + seconds_text(since) + ": " + reason +
                            "; they are tried again beside the route, which continues without them",
                        "Fix what the broker complains of; the events of a key keep their order.");
    }
    context_.report.moved = true;
    return parked_key;
}

void RouteQueue::pass_over(const ParkedKey& parked_key) {
    ++parked_keys_;
    passed_over_.add(parked_key);
    seek();
    pop_done();  // what it has parted with
}

void RouteQueue::take_again(const ParkedKey& parked_key) {
    passed_over_.end(parked_key, feed_->end());
    if (next_event_ == nullptr) passed_over_.at_end();
}

void RouteQueue::absorb(const RouteQueue& parked_key) {
    passed_over_.forget(*parked_key.parked_key_);
    delivered_ += parked_key.delivered_;
    dead_ += parked_key.dead_;
    retries_ += parked_key.retries_;
    last_delivered_at_ = std::max(last_delivered_at_, parked_key.last_delivered_at_);
    if (parked_key.last_error_at_ > last_error_at_) {
        last_error_at_ = parked_key.last_error_at_;
        last_error_ = parked_key.last_error_;
    }
    if (--parked_keys_ <= context_.limits.parked_keys / 2) told_enough_ = false;
    if (parked_keys_ > 0) return;
    if (stands()) go_on_if_empty();
    context_.notice(Notice::Level::log, shown() + " has nothing beside it any more" +
                                            (parked_keys_since_ == TimePoint{}
                                                 ? std::string()
                                                 : ", after " + seconds_text(context_.now - parked_keys_since_)));
}

// What the route had done about a new event of the parked key. True if it is not to be offered now.
bool RouteQueue::recall(std::uint64_t number) {
    auto& it = item(number);
    const auto id = it.event->id;
    auto& settled = parked_key_->settled;
    if (was_settled(id)) {
        settled.erase(std::lower_bound(settled.begin(), settled.end(), id));
        it.state = State::done;
        --unsettled_;
        pop_done();
        context_.report.moved = true;
        return true;
    }
    const auto tried = parked_key_->tried.extract(id);
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

// Before the parked key came to it.
bool RouteQueue::was_settled(const EventId& id) const {
    return parked_key_ && std::binary_search(parked_key_->settled.begin(), parked_key_->settled.end(), id);
}

std::vector<EventId> RouteQueue::settled_ahead() const {
    auto ids = parked_key_->settled;
    for (std::size_t i = 0; i < items_.size(); ++i) {
        if (items_[i].state == State::done) ids.push_back(items_[i].event->id);
    }
    std::sort(ids.begin(), ids.end());
    return ids;
}

std::string RouteQueue::shown() const {
    return (parked_key_ ? "a parked key of route \"" : "route \"") + route_->name + "\" to " + context_.broker_shown;
}

}  // namespace eventbus::delivery
