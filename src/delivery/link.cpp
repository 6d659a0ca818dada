// What it is: connecting, losing, waiting and coming back, with one notice a change.
// Who calls it: the dispatcher.
// Never: shows anything of the broker but what the dispatcher was given to show.
#include "delivery/link.hpp"

#include <algorithm>

#include "core/bad_input.hpp"

namespace eventbus::delivery {

using broker::LinkState;

namespace {

std::string waiting_text(std::size_t events) {
    if (events == 0) return {};
    return events == 1 ? ", 1 event waits" : ", " + std::to_string(events) + " events wait";
}

std::string reason_text(const BadInput& e) {
    auto detail = e.detail();
    if (detail.ends_with('.')) detail.pop_back();
    return detail.empty() ? e.message() : e.message() + " (" + detail + ')';
}

constexpr const char* settings_hint =
    "Correct the broker's URL, credentials or options with eventbus.alter_broker, or fix the broker; "
    "eventbus.test_broker "
    "tries it step by step. It is tried again by itself.";

constexpr const char* contested_hint =
    "Give each server and each broker a name of its own there: copies of a server share what is set in the broker's "
    "options. Until then the two put each other out, and each waits longer every time.";

}  // namespace

LinkKeeper::LinkKeeper(Connect connect, Context& context)
    : connect_(std::move(connect)),
      context_(context),
      backoff_(context.limits.link_first, context.limits.link_most),
      slow_backoff_(context.limits.hold_first, context.limits.hold_most),
      rest_backoff_(context.limits.link_first, context.limits.hold_most) {}

void LinkKeeper::connect_if_due(std::size_t events_waiting) {
    if (driver_ || (context_.now < retry_at_ && !(resting_ && events_waiting > 0))) return;
    state_ = LinkState::connecting;
    const auto attempt = attempt_++;
    try {
        driver_ = connect_(attempt, context_.now);
        ++made_;
        if (!driver_) failed(Remedy::retry, "no driver was made", events_waiting);
    } catch (const BadInput& e) {
        failed(Remedy::fix_settings, reason_text(e), events_waiting);
    } catch (const std::exception& e) {
        failed(Remedy::retry, e.what(), events_waiting);
    }
}

broker::Interest LinkKeeper::interest() const {
    broker::Interest interest = driver_ ? driver_->interest() : broker::Interest();
    interest.number += made_ << 32;
    return interest;
}

LinkState LinkKeeper::drive(broker::Ready ready) {
    auto link = driver_->drive(ready, context_.now);
    const auto before = state_;
    state_ = link.state;
    switch (state_) {
        case LinkState::connecting:
            break;
        case LinkState::up:
            if (before == LinkState::blocked) {
                error_.clear();
                context_.notice(Notice::Level::log, context_.broker_shown + " takes messages again after " +
                                                        seconds_text(context_.now - blocked_since_) +
                                                        "; delivery resumes");
            } else if (before != LinkState::up) {
                came_up();
            } else if (context_.now - up_since_ >=
                       (contested_ ? 2 * context_.limits.hold_most : context_.limits.healthy)) {
                contested_ = false;
                worked();
            }
            break;
        case LinkState::blocked:
            if (before == LinkState::connecting) came_up();
            if (before != LinkState::blocked) became_blocked(link.reason);
            break;
        case LinkState::down:
            down_ = std::move(link);
            if (down_.reason.empty()) down_.reason = "the connection was lost";
            break;
    }
    return state_;
}

void LinkKeeper::lost(std::size_t events_waiting, bool expected, bool follows) {
    driver_.reset();
    contested_ |= down_.contested;
    if (down_.idle && events_waiting == 0 && context_.now - up_since_ >= context_.limits.idle_at_least) return rest();
    if (expected) {
        backoff_.reset();  // the event has a back-off of its own
        wait(Remedy::retry);
        return;
    }
    failed(down_.remedy, down_.reason, events_waiting, follows);
}

// Also where there is nothing to send a connection is made: a broker that has gone is to be told.
void LinkKeeper::rest() {
    resting_ = true;
    state_ = LinkState::down;
    retry_at_ = context_.now + rest_backoff_.next(context_.dice());
}

void LinkKeeper::hurry() {
    if (driver_) return;
    retry_at_ = TimePoint{};
    worked();
}

void LinkKeeper::worked() {
    if (contested_) return;
    backoff_.reset();
    slow_backoff_.reset();
    rest_backoff_.reset();
    if (driver_) is_back();
}

void LinkKeeper::is_back() {
    if (!in_trouble_ || contested_) return;
    in_trouble_ = false;
    context_.notice(Notice::Level::log, context_.broker_shown + " is back after " +
                                            seconds_text(context_.now - trouble_since_) + "; delivery resumes");
}

// How long until the next attempt.
Backoff::Duration LinkKeeper::wait(Remedy remedy) {
    resting_ = false;
    refused_ = remedy == Remedy::fix_settings;
    const auto pause = (refused_ || contested_ ? slow_backoff_ : backoff_).next(context_.dice());
    state_ = LinkState::down;
    retry_at_ = context_.now + pause;
    return pause;
}

void LinkKeeper::failed(Remedy remedy, std::string reason, std::size_t events_waiting, bool follows) {
    const auto pause = wait(remedy);
    error_ = reason;
    if (!follows) {
        last_error_ = reason;
        last_error_at_ = context_.moment();
    }
    if (!in_trouble_) {
        in_trouble_ = true;
        trouble_since_ = context_.now;
        told_.clear();
    }
    // Hosts tried in turn may fail with reasons in turn, and a broker may let us in only to throw us out at the first
    // message: each reason is told once until the link works again.
    constexpr std::size_t most_told = 8;
    if (told_.size() == most_told || std::find(told_.begin(), told_.end(), reason) != told_.end()) return;
    context_.notice(Notice::Level::warning,
                    context_.broker_shown + ": " + reason + "; next attempt in " + seconds_text(pause) +
                        waiting_text(events_waiting),
                    contested_ ? contested_hint
                    : refused_ ? settings_hint
                               : "");
    told_.push_back(std::move(reason));
}

void LinkKeeper::came_up() {
    up_since_ = context_.now;
    resting_ = false;
    error_.clear();
    refused_ = false;
}

void LinkKeeper::became_blocked(const std::string& reason) {
    blocked_since_ = context_.now;
    error_ = reason;
    last_error_ = reason;
    last_error_at_ = context_.moment();
    context_.notice(Notice::Level::warning,
                    context_.broker_shown + " takes no messages for now" + (reason.empty() ? "" : ": " + reason) +
                        "; events wait until it does",
                    "The broker asked us to wait, as it does when memory or disk run short there.");
}

}  // namespace eventbus::delivery
