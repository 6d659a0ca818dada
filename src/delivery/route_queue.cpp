// What it is: one route's way forward: walking along the feed, choosing what is next, offering it.
// Who calls it: the dispatcher.
// Never: decides what a settlement means; that is route_settle.cpp.
#include "delivery/route_queue.hpp"

#include <algorithm>

namespace eventbus::delivery {

RouteQueue::RouteQueue(router::Route route, Context& context, Feed& feed, StreamId stream, std::uint64_t ticket_base,
                       std::uint64_t first_number)
    : id_(route.id),
      route_(std::make_unique<router::Route>(std::move(route))),
      context_(context),
      evidence_(std::make_shared<Evidence>()),
      feed_(&feed),
      stream_(stream),
      ticket_base_(ticket_base),
      next_(feed.end()),
      base_(first_number),
      hold_backoff_(context.limits.hold_first, context.limits.hold_most),
      unclear_backoff_(context.limits.link_first, context.limits.link_most) {}

void RouteQueue::change(router::Route route) {
    former_.push_back({next_number(), std::move(route_)});
    route_ = std::make_unique<router::Route>(std::move(route));
    last_topic_.clear();
    filters_until_ = feed_->end().chunk;
    if (!removed_) {
        seek();
        drop_unwanted();
    }
    draining_ = is_strict() && in_flight_ > 0;  // tickets of the old order have no lines
    pop_done();
    release_hold();
}

// What was taken and is under way finishes; nothing else is offered any more that the changed route does not take.
void RouteQueue::drop_unwanted() {
    const auto end = next_number();
    for (auto number = base_; number < end; ++number) {
        if (number < base_) continue;  // those that are done go in one stroke
        auto& it = item(number);
        if (it.state == State::done) continue;
        it.unwanted = !matches(it.event->topic);
        if (it.unwanted && it.state != State::open) done(number);
    }
    context_.report.moved = true;
}

void RouteQueue::remove() {
    removed_ = true;
    context_.moved();
    next_ = feed_->end();
    next_event_ = nullptr;
    ready_ = {};
    probes_.clear();
    timers_ = {};
    suspects_.clear();
    lines_.clear();
    for (std::size_t i = 0; i < items_.size(); ++i) {
        if (items_[i].state != State::open) items_[i].state = State::done;
    }
    pop_done();
}

void RouteQueue::move(Feed& feed, StreamId stream) {
    feed_ = &feed;
    stream_ = stream;
    next_ = feed.end();
    next_event_ = nullptr;
    left_out_.clear();
    filters_until_ = 0;
    passed_over_.at_end();
    context_.moved();
}

void RouteQueue::release_hold() {
    held_until_ = TimePoint{};
    hold_backoff_.reset();
    unclear_backoff_.reset();
    if (removed_) return;
    for (auto number = base_; number < next_number(); ++number) {
        auto& it = item(number);
        it.not_before = TimePoint{};
        if (it.extra) it.extra->backoff.reset();
        if (it.state == State::waiting) activate(number);
    }
    timers_ = {};
}

bool RouteQueue::matches(std::string_view topic) {
    if (route_->topics.matches_everything() || topic.empty()) return true;
    if (topic != last_topic_ || last_topic_.empty()) {
        last_topic_ = topic;
        last_verdict_ = route_->topics.matches(topic);
    }
    return last_verdict_;
}

// What has been found out for all routes of the stream when the chunk at hand was lent.
const BitRows* RouteQueue::known_takers() const {
    if (parked_key_ || next_.chunk < filters_until_ || route_->topics.matches_everything()) return nullptr;
    return feed_->takers(next_);
}

// Of an event whose topic is the route's, or may be.
bool RouteQueue::takes(const Event& event, Place place) {
    if (!left_out_.empty() && is_left_out(place)) return false;
    if (parked_key_ && !parked_key_->takes(event)) return false;
    if (known_takers() == nullptr && !matches(event.topic)) return false;
    return !feed_->was_settled(place, slot()) && (passed_over_.empty() || !passed_over_.passes(event, place));
}

bool RouteQueue::would_take(const Event& event, Place place) {
    if (is_left_out(place) || (parked_key_ && !parked_key_->takes(event))) return false;
    return matches(event.topic) && !feed_->was_settled(place, slot()) && !passed_over_.has(event, place);
}

void RouteQueue::seek() {
    context_.moved();
    while ((next_event_ = feed_->at(next_)) != nullptr) {
        if (const auto* takers = known_takers()) {
            const auto index = static_cast<std::uint32_t>(takers->next(slot(), next_.index));
            if (std::exchange(next_.index, index) != index) continue;  // perhaps in a later chunk
        }
        if (takes(*next_event_, next_)) break;
        ++next_.index;
    }
    if (!left_out_.empty()) std::erase_if(left_out_, [&](std::uint64_t chunk) { return chunk < next_.chunk; });
    if (next_event_ == nullptr && !passed_over_.empty()) passed_over_.at_end();
}

void RouteQueue::lent() {
    if (removed_) {
        next_ = feed_->end();
        context_.moved();
    } else if (next_event_ == nullptr) {
        seek();
        context_.report.moved |= items_.empty() && next_event_ == nullptr;
    }
}

Place RouteQueue::settled() const {
    return items_.empty() ? next_ : items_.front().place;
}

bool RouteQueue::is_settled(Position event) const {
    const auto place = feed_->place_of(event);
    if (place < settled()) return true;
    std::size_t low = 0;
    for (std::size_t high = items_.size(); low < high;) {
        const auto middle = low + (high - low) / 2;
        if (items_[middle].place < place) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low < items_.size() && items_[low].place == place) return items_[low].state == State::done;
    return place < next_;  // passed over: it does not match
}

RouteQueue::Extra& RouteQueue::extra(Item& of) {
    if (!of.extra) of.extra = take_extra();
    return *of.extra;
}

std::unique_ptr<RouteQueue::Extra> RouteQueue::take_extra() {
    if (spare_.empty()) return std::make_unique<Extra>();
    auto taken = std::move(spare_.back());
    spare_.pop_back();
    return taken;
}

void RouteQueue::return_extra(Item& of) {
    constexpr std::size_t most_spare = 4096;
    if (!of.extra) return;
    of.extra->reason.clear();
    of.extra->refused_since = TimePoint{};
    of.extra->trial = {};
    if (spare_.size() < most_spare) spare_.push_back(std::move(of.extra));
    of.extra.reset();
}

void RouteQueue::wake_timers() {
    while (!timers_.empty() && timers_.top().first <= context_.now) {
        const auto number = timers_.top().second;
        timers_.pop();
        const auto* due = find(number);
        if (due != nullptr && due->state == State::waiting && due->not_before <= context_.now) activate(number);
    }
}

std::uint64_t RouteQueue::take_new() {
    const auto number = next_number();
    Item fresh;
    fresh.event = next_event_;
    fresh.place = next_;
    items_.push_back(std::move(fresh));
    ++unsettled_;
    ++next_.index;
    seek();
    return number;
}

// The next number to try, taken from the ready ones or new; nobody when there is none.
std::uint64_t RouteQueue::candidate() {
    while (has_candidate()) {
        std::uint64_t number = 0;
        if (!ready_.empty()) {
            number = ready_.top();
            ready_.pop();
            const auto* due = find(number);
            if (due == nullptr || due->state != State::ready) continue;
        } else {
            number = take_new();
            if (parked_key_ && recall(number)) continue;
        }
        auto* line = line_of(item(number));
        if (line == nullptr || !is_blocked(*line, number)) return number;
        stand_in_line(*line, number);
    }
    return nobody;
}

std::size_t RouteQueue::offer(broker::Driver& driver, std::size_t most) {
    std::size_t offered = 0;
    if (draining_) draining_ = in_flight_ > 0;
    if (!may_offer()) return 0;
    wake_timers();
    if (stands()) drop_too_old();
    while (offered < most) {
        const bool as_probe = !is_free();
        if (as_probe && !may_probe()) break;
        const auto number = as_probe ? next_probe() : candidate();
        if (number == nobody) break;
        const auto outcome = try_offer(number, driver, as_probe);
        if (outcome == Offer::full) {
            if (as_probe) {  // it stays one: what is refused as such makes the next one wait
                probes_.insert(number);
                probe_from_ = number;
            } else {
                ready_.push(number);
            }
            window_full_ = true;
            break;
        }
        if (outcome == Offer::taken) ++offered;
    }
    return offered;
}

RouteQueue::Offer RouteQueue::try_offer(std::uint64_t number, broker::Driver& driver, bool as_probe) {
    auto& it = item(number);
    const Event& event = *it.event;
    if (!event.error.empty()) {
        dead(number, std::string(event.error));
        return Offer::dead;
    }
    if (is_too_old(event)) {
        dead(number, too_old_text(it));
        return Offer::dead;
    }
    if (!scratch_ && !it.extra) scratch_ = take_extra();
    auto& text = it.extra ? *it.extra : *scratch_;
    broker::Outgoing outgoing;
    outgoing.ticket = ticket_base_ + number;
    outgoing.lane = id_;
    outgoing.event = &event;
    outgoing.addressing = &route_->addressing;
    outgoing.name = route_->destination.name.render(event, text.name);
    outgoing.routing_key = route_->routing_key.render(event, text.routing_key);
    if (outgoing.name.empty()) {
        dead(number, "the destination's name is empty for this event");
        return Offer::dead;
    }
    if (std::max(outgoing.name.size(), outgoing.routing_key.size()) > router::longest_text) {
        dead(number, "the destination's name is longer than 64 kB for this event");
        return Offer::dead;
    }
    if (!driver.offer(outgoing)) return Offer::full;
    const bool borrowed =
        outgoing.name.data() == text.name.data() || outgoing.routing_key.data() == text.routing_key.data();
    if (!it.extra && borrowed) it.extra = std::move(scratch_);
    opened(number, as_probe);
    return Offer::taken;
}

void RouteQueue::opened(std::uint64_t number, bool as_probe) {
    auto& it = item(number);
    it.state = State::open;
    it.offer = ++context_.offers;
    ++in_flight_;
    if (it.offered++ > 0) ++retries_;
    if (as_probe) {
        probe_ = number;
        probe_from_ = number + 1;
    }
    if (!it.event->key) return;
    if (auto* line = lines_.find(*it.event->key)) {
        if (line->has(number)) {
            line->erase(number);
            line->open = number;
        }
    } else if (is_strict()) {
        lines_.make(*it.event->key).open = number;
    }
}

TimePoint RouteQueue::wake_at(bool may_test) const {
    constexpr auto at_once = TimePoint{};
    constexpr auto never = TimePoint::max();
    if (!may_offer()) return never;
    if (stands()) return wake_standing(may_test);
    TimePoint due = timers_.empty() ? never : timers_.top().first;
    if (!window_full_ && (has_candidate() || (may_test && !suspects_.empty()))) due = at_once;
    return due;
}

RouteStatus RouteQueue::status(RouteState link_state) const {
    RouteStatus status;
    status.route = id_;
    status.state = link_state;
    if (stand_ == Stand::unclear && link_state == RouteState::active) status.state = RouteState::retrying;
    if (stand_ == Stand::settings || stand_ == Stand::names) status.state = RouteState::held;
    if (paused_) status.state = RouteState::paused;
    status.stream = stream_;
    status.idle = is_idle();
    status.settled = feed_->shown(settled());
    status.delivered = delivered_;
    status.dead = dead_;
    status.retries = retries_;
    status.in_flight = in_flight_;
    const Event* oldest = items_.empty() ? next_event_ : items_.front().event;
    status.oldest_published_at = oldest != nullptr ? oldest->published_at : 0;
    status.last_delivered_at = last_delivered_at_;
    status.last_error_at = last_error_at_;
    status.last_error = last_error_;
    status.next_attempt_at = next_attempt_at();
    return status;
}

TimePoint RouteQueue::next_attempt_at() const {
    if (paused_ || in_flight_ > 0) return {};
    if (stands()) return held_until_;
    if (timers_.empty()) return {};
    const auto [due, number] = timers_.top();
    const bool waits = number - base_ < items_.size() && items_[number - base_].state == State::waiting;
    return waits ? due : TimePoint{};
}

}  // namespace eventbus::delivery
