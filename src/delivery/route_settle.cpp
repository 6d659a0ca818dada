// What it is: what becomes of a route's tickets when they settle: done, dead, again, in line, or the route held.
// Who calls it: the dispatcher, with the driver's settlements.
// Never: offers anything.
#include <algorithm>
#include <cstdio>

#include "delivery/route_queue.hpp"

namespace eventbus::delivery {

void RouteQueue::settle(std::uint64_t number, Settlement& settlement) {
    auto* it = find(number);
    if (it == nullptr || it->state != State::open) return;
    --in_flight_;
    context_.report.moved = true;
    if (removed_ || it->left_out || (it->unwanted && settlement.verdict != Verdict::delivered)) {
        if (number == probe_) probe_ = nobody;
        done(number);
        return;
    }
    switch (settlement.verdict) {
        case Verdict::delivered:
            delivered(*it);
            passes(number);
            if (auto* line = line_of(*it)) line->delivered();
            if (settlement.remedy == Remedy::fix_settings)
                arrived_otherwise(number, settlement);
            else if (number == probe_ || stand_ == Stand::names || stand_ == Stand::unclear)
                heal();
            else if (it->offer > stand_begun_)
                stands_empty_ = false;  // one that was offered later arrived as wanted
            done(number);
            break;
        case Verdict::refused:
            refused(number, settlement);
            break;
        case Verdict::unknown:
            if (number == probe_) {
                probe_ = nobody;
                probe_from_ = number;
            }
            if (context_.caution.broke) {
                broke(number);
            } else {
                come_back(number);
            }
            break;
    }
}

// It has arrived, but not as the route's options want it: the route stands, also while nothing waits.
void RouteQueue::arrived_otherwise(std::uint64_t number, Settlement& settlement) {
    const bool was_probe = number == probe_;
    if (was_probe) probe_ = nobody;
    note_error(item(number), settlement.reason);
    last_error_ = settlement.reason;  // no single event is to blame
    if (was_probe || stand_ != Stand::settings) stand(Stand::settings, number, settlement.reason);
    stands_empty_ = true;
}

void RouteQueue::delivered(const Item& of) {
    ++delivered_;
    evidence_->delivered(of.offer);
    context_.evidence.delivered(of.offer);
    last_delivered_at_ = context_.moment();
    ++context_.delivered;
    // By the clock that the event's time is of: one that was set back meanwhile makes it no time at all.
    const auto committed_at = std::max(of.event->published_at, feed_->committed_after(of.place));
    ++latencies_[latency_bucket(context_.wall_now - committed_at)];
}

void RouteQueue::take_latencies(LatencyCounts& into) {
    if (latencies_taken_ == delivered_) return;
    latencies_taken_ = delivered_;
    for (std::size_t i = 0; i < into.size(); ++i) into[i] += latencies_[i];
    latencies_ = {};
}

void RouteQueue::refused(std::uint64_t number, Settlement& settlement) {
    if (settlement.reason.empty()) settlement.reason = "refused without a reason";
    auto& it = item(number);
    context_.refused_at = context_.now;
    note_error(it, settlement.reason);
    const bool was_probe = number == probe_;
    if (was_probe) probe_ = nobody;
    switch (settlement.remedy) {
        case Remedy::fix_settings:
            try_again(number, settlement.remedy);
            if (is_own(it) && !evidence_->all_refused()) {
                if (was_probe && evidence_->delivered_after(stand_begun_)) {
                    heal();
                } else if (was_probe) {
                    probe_failed();
                }
                wait(number, settlement.reason, settlement.remedy);
                break;
            }
            if (was_probe || stand_ != Stand::settings) stand(Stand::settings, number, settlement.reason);
            last_error_ = settlement.reason;  // no single event is to blame
            it.extra->reason = settlement.reason;
            come_back(number);
            break;
        case Remedy::retry:
            if (was_probe) probe_failed();
            try_again(number, settlement.remedy);
            if (!stands() && !parked_key_) nothing_passes(it, settlement.reason);
            wait(number, settlement.reason, settlement.remedy);
            break;
        case Remedy::forbidden:
        case Remedy::unclear:
            try_again(number, settlement.remedy);
            if (is_own(it)) {
                if (was_probe) heal();
            } else if (was_probe || is_all_refused()) {
                stand(settlement.remedy == Remedy::forbidden ? Stand::names : Stand::unclear, number,
                      settlement.reason);
            }
            wait(number, settlement.reason, settlement.remedy);
            break;
        case Remedy::park:
        case Remedy::none:
            dead(number, std::move(settlement.reason));
            break;
    }
}

// Refused, but not for good: back-off, and its key waits with it.
void RouteQueue::wait(std::uint64_t number, const std::string& reason, Remedy remedy) {
    auto& it = item(number);
    const auto& options = route_->options;
    auto& more = extra(it);
    if (options.max_attempts > 0 && more.trial.counted >= options.max_attempts) {
        dead(number, "max_attempts (" + std::to_string(options.max_attempts) + ") reached: " + reason);
        return;
    }
    if (is_given_up(it, remedy)) {
        dead(number, reason);
        return;
    }
    more.reason = reason;
    if (is_too_old(*it.event)) {
        dead(number, too_old_text(it));
        return;
    }
    if (!has_waited(it)) {
        more.refused_since = context_.now;
        more.delivered_before = delivered_;
    }
    it.not_before = context_.now + more.backoff.next(context_.dice());
    if (options.max_age) {
        const auto age = std::chrono::microseconds(context_.wall_now - it.event->published_at);
        it.not_before =
            std::min<TimePoint>(it.not_before, context_.now + (*options.max_age - age) + std::chrono::microseconds(1));
    }
    if (more.trial.counted > 0 && (remedy == Remedy::forbidden || remedy == Remedy::unclear)) {
        const auto enough = more.trial.counted_since + context_.limits.give_up_after;
        if (enough > context_.now) it.not_before = std::min<TimePoint>(it.not_before, enough);
    }
    go_back(number);
    if (auto* line = line_of(it)) {
        line->refused();
        if (line->trouble == 0) line->trouble = more.trial.begun;
    }
}

// It waits until its time, and its key with it.
void RouteQueue::go_back(std::uint64_t number) {
    const auto& it = item(number);
    if (!it.event->key) {
        activate(number);
        return;
    }
    auto* line = line_of(it);
    if (line == nullptr) line = &lines_.make(*it.event->key);
    if (line->open == number) line->open = nobody;
    stand_in_line(*line, number);
}

// Not refused, or not by its own fault: offered again in its old order as soon as possible.
void RouteQueue::come_back(std::uint64_t number) {
    auto& it = item(number);
    it.not_before = TimePoint{};
    auto* line = line_of(it);
    if (line == nullptr && it.event->key && is_suspect(it)) line = &lines_.make(*it.event->key);
    if (line == nullptr) {
        activate(number);
        return;
    }
    if (line->open == number) line->open = nobody;
    stand_in_line(*line, number);
}

// Whether an older event of the key (any other one with strict order) has to be settled first.
bool RouteQueue::is_blocked(const KeyLine& line, std::uint64_t number) const {
    if (line.open != nobody && (is_strict() || line.open < number)) return true;
    return !line.empty() && line.front() < number;
}

void RouteQueue::stand_in_line(KeyLine& line, std::uint64_t number) {
    if (!line.empty() && line.front() > number) item(line.front()).state = State::queued;
    line.insert(number);
    item(number).state = State::queued;
    advance(line, *item(number).event->key);
}

void RouteQueue::leave_line(std::uint64_t number) {
    const auto& it = item(number);
    auto* line = line_of(it);
    if (line == nullptr) return;
    if (line->open == number) {
        line->open = nobody;
    } else {
        line->erase(number);
    }
    advance(*line, *it.event->key);
}

// Lets the first in line go, and, once the key is calm, those behind it that nothing is known against; with strict
// order only the first.
// The line may be gone afterwards.
void RouteQueue::advance(KeyLine& line, std::string_view key) {
    if (!is_strict() && line.is_calm()) {
        while (!line.empty() && item(line.front()).refused == 0 && !is_suspect(item(line.front())) &&
               !is_blocked(line, line.front())) {
            const auto number = line.front();
            line.pop_front();
            activate(number);
        }
    }
    if (line.open != nobody) return;
    if (line.empty()) {
        lines_.erase(key);
    } else if (item(line.front()).state == State::queued) {
        activate(line.front());
    }
}

void RouteQueue::activate(std::uint64_t number) {
    auto& it = item(number);
    if (it.not_before > context_.now && !stands()) {
        it.state = State::waiting;
        timers_.push({it.not_before, number});
    } else if (is_suspect(it)) {
        suspect(number);
    } else {
        it.state = State::ready;
        if (stands() && has_waited(it)) {
            probes_.insert(number);
        } else {
            ready_.push(number);
        }
    }
}

void RouteQueue::link_lost() {
    if (probe_ != nobody) probe_from_ = probe_;
    probe_ = nobody;
    if (in_flight_ == 0) return;
    in_flight_ = 0;
    for (auto number = base_; number < next_number(); ++number) {
        auto* it = find(number);  // one that dies of it takes settled ones behind it along
        if (it == nullptr || it->state != State::open) continue;
        if (removed_ || it->left_out || it->unwanted) {
            it->state = State::done;
            --unsettled_;
            leave_line(number);
        } else if (context_.caution.broke) {
            broke(number);
        } else {
            come_back(number);
        }
    }
    pop_done();
}

void RouteQueue::dead(std::uint64_t number, std::string error) {
    const auto& it = item(number);
    note_error(it, error);
    context_.report.moved = true;
    context_.report.dead.push_back({id_, stream_, it.event, std::move(error), it.offered});
    ++dead_;
    done(number);
}

void RouteQueue::done(std::uint64_t number) {
    auto& it = item(number);
    it.state = State::done;
    --unsettled_;
    if (it.suspicion.blame == Blame::guilty) --guilty_;
    return_extra(it);
    if (it.event->key && !lines_.empty()) leave_line(number);
    pop_done();
}

void RouteQueue::pop_done() {
    context_.moved();
    for (; !items_.empty() && items_.front().state == State::done; ++base_) items_.pop_front();
    if (items_.empty() && !timers_.empty()) timers_ = {};  // what is left of them is stale
    if (stands()) go_on_if_empty();
    if (former_.empty()) return;
    if (in_flight_ == 0) former_.clear();
    std::erase_if(former_, [&](const Former& former) { return former.until <= base_; });
}

bool RouteQueue::is_too_old(const Event& event) const {
    const auto& max_age = route_->options.max_age;
    return max_age && std::chrono::microseconds(context_.wall_now - event.published_at) > *max_age;
}

std::string RouteQueue::too_old_text(const Item& of) const {
    char age[32];
    std::snprintf(age, sizeof age, "%g", std::chrono::duration<double>(*route_->options.max_age).count());
    const bool has_reason = of.extra && !of.extra->reason.empty();
    return "max_age (" + std::string(age) + " s) reached: " + (has_reason ? of.extra->reason : "not delivered in time");
}

void RouteQueue::note_error(const Item& of, const std::string& error) {
    last_error_ = with_name(of, error);
    last_error_at_ = context_.moment();
}

}  // namespace eventbus::delivery
