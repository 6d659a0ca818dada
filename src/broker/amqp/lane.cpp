// What it is: one route's channel and its open tickets; see lane.hpp.
// Who calls it: the AMQP driver.
// Never: writes to the socket, or settles a ticket twice.
#include "broker/amqp/lane.hpp"

#include <algorithm>
#include <charconv>
#include <functional>
#include <utility>

#include "broker/amqp/frame.hpp"

namespace eventbus::broker::amqp {

namespace {

std::size_t hash_of(std::string_view text) {
    return std::hash<std::string_view>{}(text);
}

// The exchange that the broker names: "NOT_FOUND - no exchange 'orders' in vhost '/'".
std::optional<std::string_view> exchange_in(std::string_view text) {
    constexpr std::string_view mark = "exchange '";
    const std::size_t start = text.find(mark);
    if (start == text.npos) return {};
    const std::size_t end = text.find('\'', start + mark.size());
    if (end == text.npos) return {};
    return text.substr(start + mark.size(), end - start - mark.size());
}

// The size that the broker names: "PRECONDITION_FAILED - message size 2000 is larger than …".
std::optional<std::size_t> message_size_in(std::string_view text) {
    constexpr std::string_view mark = "message size ";
    const std::size_t start = text.find(mark);
    if (start == text.npos) return {};
    std::size_t size = 0;
    const char* first = text.data() + start + mark.size();
    if (std::from_chars(first, text.data() + text.size(), size).ec != std::errc{}) return {};
    return size;
}

}  // namespace

bool Lane::takes(std::size_t window, std::size_t bytes) const {
    if (open_ == 0) return flow;
    return flow && one_by_one_ == 0 && open_ < window && bytes_ < bytes;
}

void Lane::opened(std::uint16_t number) {
    channel = number;
    flow = true;
    first_tag_ = 1;
}

void Lane::published(std::uint64_t ticket, std::int64_t event_id, std::size_t payload, std::string_view exchange,
                     TimePoint now) {
    tickets_.push_back({ticket, event_id, payload, hash_of(exchange), now, false});
    ++open_;
    bytes_ += payload;
}

void Lane::finish(Ticket& ticket, Settlement settlement, Settlements& out) {
    settlement.ticket = ticket.id;
    out.push_back(std::move(settlement));
    ticket.settled = true;
    --open_;
    bytes_ -= ticket.payload;
}

void Lane::confirm_one(std::uint64_t tag, bool acked, Settlements& out) {
    Ticket& ticket = tickets_[tag - first_tag_];
    if (ticket.settled) return;
    auto returned = returned_.empty() ? decltype(returned_)::node_type{} : returned_.extract(tag);
    if (!acked) {
        finish(ticket, {0, Verdict::refused, Remedy::retry, "the broker could not take the message (basic.nack)"}, out);
        return;
    }
    if (one_by_one_ > 0) --one_by_one_;
    if (returned.empty())
        finish(ticket, {0, Verdict::delivered, Remedy::none, {}}, out);
    else
        finish(ticket, {0, Verdict::refused, Remedy::park, std::move(returned.mapped())}, out);
}

bool Lane::confirm(std::uint64_t tag, bool multiple, bool acked, Settlements& out) {
    const std::uint64_t end_tag = first_tag_ + tickets_.size();
    if (tag == 0 && multiple) tag = end_tag - 1;  // "all so far"
    if (tag >= end_tag) return false;
    if (tag < first_tag_) return true;  // said before
    for (std::uint64_t each = multiple ? first_tag_ : tag; each <= tag; ++each) confirm_one(each, acked, out);
    drop_settled();
    return true;
}

void Lane::drop_settled() {
    while (!tickets_.empty() && tickets_.front().settled) {
        tickets_.pop_front();
        ++first_tag_;
    }
}

void Lane::give_up(TimePoint since, const std::string& reason, Settlements& out) {
    std::uint64_t tag = first_tag_;
    for (Ticket& ticket : tickets_) {
        if (ticket.since > since) break;
        returned_.erase(tag++);
        if (!ticket.settled) finish(ticket, {0, Verdict::refused, Remedy::retry, reason}, out);
    }
    drop_settled();
}

bool Lane::return_started(std::string reason) {
    if (return_) return false;
    return_ = Return{std::move(reason)};
    return true;
}

bool Lane::return_header(std::string_view message_id, std::uint64_t body_size) {
    if (!return_ || return_->has_header) return false;
    std::int64_t event_id = 0;
    const auto [end, error] = std::from_chars(message_id.data(), message_id.data() + message_id.size(), event_id);
    if (error != std::errc{} || end != message_id.data() + message_id.size()) return false;
    std::uint64_t tag = first_tag_;
    const auto found = std::find_if(tickets_.begin(), tickets_.end(), [&](const Ticket& ticket) {
        const std::uint64_t its_tag = tag++;
        return ticket.event_id == event_id && !ticket.settled && !returned_.contains(its_tag);
    });
    if (found == tickets_.end()) return false;
    returned_.emplace(tag - 1, std::move(return_->reason));
    return_->has_header = true;
    return_->left = body_size;
    if (body_size == 0) return_.reset();
    return true;
}

bool Lane::return_body(std::size_t bytes) {
    if (!return_ || !return_->has_header || bytes > return_->left) return false;
    return_->left -= bytes;
    if (return_->left == 0) return_.reset();
    return true;
}

// Publishes are worked on in order, so that the oldest open ticket that fits the broker's words is the one. A
// 404 or 403 names the exchange, a 406 for a message too large its size. Null: it can't be known.
Lane::Ticket* Lane::culprit(unsigned code, std::string_view text) {
    const auto oldest = [&](auto fits) -> Ticket* {
        const auto found = std::find_if(tickets_.begin(), tickets_.end(),
                                        [&](const Ticket& ticket) { return !ticket.settled && fits(ticket); });
        return found == tickets_.end() ? nullptr : &*found;
    };
    if (code == AMQP_NOT_FOUND || code == AMQP_ACCESS_REFUSED) {
        const auto exchange = exchange_in(text);
        Ticket* named =
            exchange ? oldest([hash = hash_of(*exchange)](const Ticket& ticket) { return ticket.exchange == hash; })
                     : nullptr;
        return named ? named : oldest([](const Ticket&) { return true; });
    }
    if (const auto size = message_size_in(text)) {
        if (Ticket* named = oldest([&](const Ticket& ticket) { return ticket.payload == *size; })) return named;
    }
    return open_ == 1 ? oldest([](const Ticket&) { return true; }) : nullptr;
}

void Lane::closed(unsigned code, std::string_view text, Settlements& out) {
    const std::string reason = std::to_string(code) + " " + printable(text);
    if (Ticket* found = culprit(code, text)) {
        const bool settings = code == AMQP_NOT_FOUND || code == AMQP_ACCESS_REFUSED;
        const bool message = code == AMQP_PRECONDITION_FAILED || code == AMQP_CONTENT_TOO_LARGE;
        const Remedy remedy = settings ? Remedy::fix_settings : message ? Remedy::park : Remedy::retry;
        if (one_by_one_ > 0) --one_by_one_;
        finish(*found, {0, Verdict::refused, remedy, reason}, out);
    } else {
        one_by_one_ = open_;  // the one that fails alone is the one
    }
    lost(reason, out);
}

void Lane::lost(const std::string& reason, Settlements& out) {
    for (Ticket& ticket : tickets_)
        if (!ticket.settled) finish(ticket, {0, Verdict::unknown, Remedy::retry, reason}, out);
    tickets_.clear();
    returned_.clear();
    return_.reset();
    channel = 0;
}

}  // namespace eventbus::broker::amqp
