// What it is: whose trouble a refusal is: the event's own, its route's or its broker's; and when an event is given up.
// Who calls it: route_settle.cpp, for what is refused.
// Never: counts an attempt of a time in which nothing was delivered, or gives up what may be the broker's trouble.
#include <algorithm>

#include "delivery/route_queue.hpp"

namespace eventbus::delivery {

namespace {

// All of it is to fit into what eventbus.status shows.
constexpr std::size_t longest_words = 300;
constexpr std::size_t longest_name = 70;

std::string shortened(std::string_view text, std::size_t longest) {
    if (text.size() <= longest) return std::string(text);
    std::size_t end = longest;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // within a character
    return std::string(text.substr(0, end)) + "...";
}

}  // namespace

std::uint64_t RouteQueue::whose(const Item& of) const {
    const auto whose = of.event->key ? KeyHash{}(*of.event->key) : std::hash<EventId>{}(of.event->id);
    return (whose ^ (std::uint64_t{id_} << 32)) | 1;
}

// An attempt counts where what was offered later is delivered: for `retry` something of the broker, since the trouble
// of the key began and unless several are refused now; for an answer that may pass something of the route, between two
// attempts; else something of the route, since the event was refused first.
void RouteQueue::try_again(std::uint64_t number, Remedy remedy) {
    auto& it = item(number);
    auto& trial = extra(it).trial;
    const auto* line = line_of(it);
    const bool is_first = it.refused++ == 0;
    if (is_first && it.suspicion.blame != Blame::guilty)
        extra(it).backoff = Backoff(context_.limits.event_first, context_.limits.event_most);
    if (trial.first == 0) {
        trial.since = context_.now;
        trial.begun = trial.first = it.offer;
        if (parked_key_ && parked_key_->key && parked_key_->trouble != 0) trial.begun = parked_key_->trouble;
        if (line != nullptr && line->trouble != 0) trial.begun = line->trouble;
    }
    evidence_->refused(whose(it));
    context_.evidence.refused(whose(it));
    switch (remedy) {
        case Remedy::forbidden:
            trial.counts = evidence_->delivered_after(trial.first);
            break;
        case Remedy::unclear:
            trial.counts = trial.latest != 0 && evidence_->delivered_after(trial.latest) && !evidence_->all_refused();
            break;
        case Remedy::retry:
            trial.counts = context_.evidence.delivered_after(trial.begun) && !context_.evidence.all_refused();
            break;
        default:
            trial.counts = evidence_->delivered_after(trial.first) && !evidence_->all_refused();
    }
    if (trial.counts) {
        if (trial.counted == 0) trial.counted_since = trial.first_is_open ? trial.since : context_.now;
        trial.counted += trial.first_is_open ? 2 : 1;
    }
    trial.first_is_open = is_first && !trial.counts;
    trial.latest = it.offer;
}

// Others of the route were delivered since.
bool RouteQueue::is_own(const Item& it) const {
    return it.extra && it.extra->trial.begun != 0 && evidence_->delivered_after(it.extra->trial.begun);
}

bool RouteQueue::is_given_up(const Item& it, Remedy remedy) const {
    const auto& trial = it.extra->trial;
    if (remedy != Remedy::forbidden && remedy != Remedy::unclear) return false;
    return trial.counts && context_.now - trial.counted_since >= context_.limits.give_up_after;
}

// Nothing that the route has on hand was delivered since all of it has been refused.
bool RouteQueue::is_all_refused() {
    if (evidence_->last() != row_begun_) {
        row_begun_ = evidence_->last();
        refused_in_a_row_ = 0;
    }
    ++refused_in_a_row_;
    if (stands() || parked_key_ || next_event_ != nullptr) return false;
    return (in_flight_ == 0 && !has_candidate()) || refused_in_a_row_ >= unsettled_;
}

// Refused for the time being, as everything is: it is the broker's trouble, or the route's, and may last.
void RouteQueue::nothing_passes(const Item& it, const std::string& words) {
    if (refused_since_ == TimePoint{}) refused_since_ = context_.now;
    if (told_refused_ != TimePoint{} || context_.now - refused_since_ < context_.limits.tell_refused) return;
    told_refused_ = refused_since_;
    context_.notice(Notice::Level::warning,
                    shown() + " delivers nothing for " + seconds_text(context_.now - refused_since_) +
                        ": its events are refused for the time being: " + with_name(it, words) +
                        "; trying again, at most " + seconds_text(context_.limits.event_most) +
                        " apart, they stay in " + source(),
                    "Look at the broker's memory and disk, and at the limits of what the route delivers to.");
}

// Delivered: what nothing_passes() told is over once it is the oldest, or one that was refused.
void RouteQueue::passes(std::uint64_t number) {
    refused_since_ = TimePoint{};
    if (told_refused_ == TimePoint{} || (number != base_ && !has_waited(item(number)))) return;
    context_.notice(Notice::Level::log,
                    shown() + " delivers again after " + seconds_text(context_.now - told_refused_));
    told_refused_ = TimePoint{};
}

// WRONGTYPE Operation against a key ... (event 42 to list "orders")
std::string RouteQueue::with_name(const Item& it, std::string_view words) const {
    EventIdText id;
    std::string scratch;
    std::string text = shortened(words, longest_words);
    text += " (event " + std::string(to_text(it.event->id, id)) + " to " + route_->destination.kind + " \"";
    text += shortened(route_->destination.name.render(*it.event, scratch), longest_name) + '"';
    if (route_->destination.kind == "exchange")
        text += ", routing key \"" + shortened(route_->routing_key.render(*it.event, scratch), longest_name) + '"';
    return text + ')';
}

}  // namespace eventbus::delivery
