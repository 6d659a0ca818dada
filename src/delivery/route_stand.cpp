// What it is: a route that stands, because what is refused is not one event's trouble: probes, and how it continues.
// Who calls it: the route queue.
// Never: depends on one event: probes are taken in turn, of the oldest of each key.
#include <algorithm>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "delivery/route_queue.hpp"

namespace eventbus::delivery {

void RouteQueue::stand(Stand why, std::uint64_t number, const std::string& words) {
    const bool is_new = stand_ != why;
    if (!stands()) {
        if (context_.now - healed_at_ >= context_.limits.healthy) {
            hold_backoff_.reset();
            unclear_backoff_.reset();
        }
        held_since_ = context_.now;
    }
    stand_ = why;
    stand_begun_ = item(number).offer;
    probe_failed();
    if (!is_new) return;
    begin_standing();
    const auto pause = held_until_ - context_.now;
    const auto then = "; trying again in " + seconds_text(pause) + ", its events stay in " + source();
    constexpr auto warning = Notice::Level::warning;
    switch (why) {
        case Stand::no:
            break;
        case Stand::settings:
            context_.notice(warning, shown() + " is held: " + words + then,
                            "Fix the destination or the permissions on the broker, or change the route with "
                            "eventbus.alter_route; the route resumes by itself.");
            break;
        case Stand::names:
            context_.notice(warning,
                            shown() + " is held: " + with_name(item(number), words) + ", as all that it has" + then,
                            "Permit these names on the broker, or change the route's destination or topics with "
                            "eventbus.alter_route; the route resumes by itself.");
            break;
        case Stand::unclear:
            context_.notice(warning, shown() + " is refused all that it has: " + with_name(item(number), words) + then,
                            "A proxy may say so whose server is away; the route resumes by itself.");
            break;
    }
}

// While the route stands, what was refused waits for its turn, not for a time of its own.
void RouteQueue::begin_standing() {
    probe_from_ = base_;
    for (; !timers_.empty(); timers_.pop()) {
        const auto* due = find(timers_.top().second);
        if (due != nullptr && due->state == State::waiting) activate(timers_.top().second);
    }
    // What stood in turn for another reason, and was never refused for this one, comes before what is new.
    std::erase_if(probes_, [&](std::uint64_t number) {
        const auto* due = find(number);
        const bool is_ready = due != nullptr && due->state == State::ready;
        if (is_ready && has_waited(*due)) return false;
        if (is_ready) ready_.push(number);
        return true;
    });
}

void RouteQueue::go_on(const std::string& told) {
    probe_ = nobody;
    stand_ = Stand::no;
    stands_empty_ = false;
    healed_at_ = context_.now;
    for (const auto number : std::exchange(probes_, {})) {
        auto* it = find(number);
        if (it == nullptr || it->state != State::ready) continue;
        it->not_before = TimePoint{};
        activate(number);
    }
    context_.notice(Notice::Level::log, shown() + told + seconds_text(context_.now - held_since_));
}

void RouteQueue::probe_failed() {
    auto& backoff = stand_ == Stand::unclear ? unclear_backoff_ : hold_backoff_;
    held_until_ = context_.now + backoff.next(context_.dice());
}

void RouteQueue::heal() {
    go_on(" delivers again after ");
}

// What it stood for has gone: dropped by a change, too old, or left out. What was parked is refused there.
void RouteQueue::go_on_if_empty() {
    const bool has_more = next_event_ != nullptr || (parked_keys_ > 0 && stand_ != Stand::settings);
    if (items_.empty() && !has_more && !removed_ && !stands_empty_)
        go_on(" has nothing left of what was refused; it resumes after ");
}

// A parked key delivers: not everything of the route is refused.
void RouteQueue::look_beside() {
    if (stand_ != Stand::settings && evidence_->delivered_after(stand_begun_)) heal();
}

// In turn: of what is ready and the oldest of its key the first behind the last probe; then what is new; then again
// from the oldest on.
std::uint64_t RouteQueue::next_probe() {
    for (; !ready_.empty(); ready_.pop()) probes_.insert(ready_.top());
    std::unordered_set<std::string_view> keys;
    auto first = nobody;
    auto chosen = nobody;
    auto look_at = [&](std::uint64_t number) {
        const auto& key = item(number).event->key;
        if (key && !keys.insert(*key).second) return;
        first = std::min(first, number);
        if (number >= probe_from_ && chosen == nobody) chosen = number;
    };
    for (auto at = probes_.begin(); at != probes_.end() && chosen == nobody;) {
        const auto number = *at;
        const auto* due = find(number);
        auto* line = due != nullptr && due->state == State::ready ? line_of(*due) : nullptr;
        const bool is_stale = due == nullptr || due->state != State::ready;
        if (!is_stale && (line == nullptr || !is_blocked(*line, number))) {
            look_at(number);
            ++at;
            continue;
        }
        at = probes_.erase(at);
        if (!is_stale) stand_in_line(*line, number);
    }
    while (chosen == nobody && next_event_ != nullptr) {
        const auto number = take_new();
        if (parked_key_ && recall(number)) continue;
        if (auto* line = line_of(item(number)); line != nullptr && is_blocked(*line, number)) {
            stand_in_line(*line, number);
            continue;
        }
        probes_.insert(number);
        look_at(number);
    }
    if (chosen == nobody) chosen = first;
    probes_.erase(chosen);
    return chosen;
}

// Events that are too old become dead letters also while nothing is offered.
void RouteQueue::drop_too_old() {
    if (!route_->options.max_age) return;
    const auto end = next_number();
    for (auto number = base_; number < end; ++number) {
        if (number < base_) continue;
        const auto& it = item(number);
        if (it.state == State::done || it.state == State::open) continue;
        if (!is_too_old(*it.event)) break;
        dead(number, too_old_text(it));
    }
    while (!parked_key_ && next_event_ != nullptr && is_too_old(*next_event_)) {
        const auto number = take_new();
        dead(number, too_old_text(item(number)));
    }
}

TimePoint RouteQueue::wake_standing(bool may_test) const {
    TimePoint due = TimePoint::max();
    if (!window_full_) {
        if (is_free()) return TimePoint{};
        const bool has_probe = has_candidate() || !probes_.empty() || (may_test && !suspects_.empty());
        if (in_flight_ == 0 && has_probe) due = held_until_;
    }
    const Event* oldest = items_.empty() ? next_event_ : items_.front().event;
    if (!route_->options.max_age || oldest == nullptr || in_flight_ > 0) return due;
    const auto age = std::chrono::microseconds(context_.wall_now - oldest->published_at);
    return std::min<TimePoint>(due, context_.now + (*route_->options.max_age - age) + std::chrono::microseconds(1));
}

}  // namespace eventbus::delivery
