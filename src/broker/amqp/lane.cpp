// What it is: one route's channel and its open tickets; see lane.hpp.
// Who calls it: the AMQP driver.
// Never: writes to the socket, or settles a ticket twice.
#include "broker/amqp/lane.hpp"

#include <algorithm>
#include <utility>

#include "broker/amqp/frame.hpp"

namespace eventbus::broker::amqp {

namespace {

constexpr unsigned no_route = 312;
constexpr std::size_t most_in_a_row = 8192;  // more than the window, which the oldest ticket may hold back for minutes
constexpr std::size_t most_given_up = 4096;

}  // namespace

std::string shown(const Address& address) {
    return "exchange '" + printable(address.exchange) + "', routing key '" + printable(address.routing_key) + "'";
}

bool Lane::takes(std::size_t window, std::size_t bytes) const {
    if (channel == 0 || opening || yields || !flow) return false;
    return open_ == 0 || (!aside && one_by_one_ == 0 && open_ < window && bytes_ < bytes);
}

void Lane::opened(std::uint16_t number, TimePoint now) {
    channel = number;
    flow = opening = true;
    yields = used = false;
    turn_since = now;
    first_tag_ = 1;
    last_returned_ = 0;
}

// Tags count on; what the other has given up may still be answered.
void Lane::take_channel(Lane& from, TimePoint now) {
    opened(std::exchange(from.channel, 0), now);
    opening = false;
    flow = from.flow;
    first_tag_ = from.first_tag_ + from.tickets_.size();
    last_returned_ = from.last_returned_;
    given_up_ = std::move(from.given_up_);
    return_ = std::exchange(from.return_, std::nullopt);
    passed_over_ = std::exchange(from.passed_over_, 0);
    Settlements none;
    from.lost({}, none);
}

void Lane::published(std::uint64_t ticket, const EventId& event, std::size_t payload, const Address& address,
                     TimePoint now, const Key& key) {
    tickets_.push_back({ticket, event, address, key, payload, now, false});
    ++open_;
    bytes_ += payload;
    used = true;
}

bool Lane::has_key(const Key& key) const {
    return key && open_ > 0 && oldest([&](const Ticket& ticket, std::uint64_t) { return ticket.key == key; }) != 0;
}

TimePoint Lane::waits_since() const {
    if (!stragglers_.empty()) return stragglers_.begin()->second.since;
    return tickets_.empty() ? TimePoint::max() : tickets_.front().since;
}

void Lane::finish(Ticket& ticket, Verdict verdict, Remedy remedy, std::string reason, Settlements& out) {
    out.push_back({ticket.id, verdict, remedy, std::move(reason)});
    ticket.settled = true;
    --open_;
    bytes_ -= ticket.payload;
}

// The channel is gone for it, and would be again.
void Lane::refuse(Ticket& ticket, Remedy remedy, bool whole_exchange, std::string reason, Settlements& out) {
    if (one_by_one_ > 0) --one_by_one_;
    if (remedy != Remedy::park) refused->add(ticket.address, whole_exchange);
    finish(ticket, Verdict::refused, remedy, std::move(reason), out);
}

void Lane::confirm_one(Ticket& ticket, std::uint64_t tag, bool acked, Settlements& out) {
    if (ticket.settled) return;
    refused->taken(ticket.address);
    auto returned = returned_.empty() ? decltype(returned_)::node_type{} : returned_.extract(tag);
    if (!acked) {
        finish(ticket, Verdict::refused, Remedy::retry,
               "the broker could not take the message (basic.nack): " + shown(ticket.address), out);
        return;
    }
    if (one_by_one_ > 0) --one_by_one_;
    if (returned.empty()) {
        finish(ticket, Verdict::delivered, Remedy::none, {}, out);
        return;
    }
    // As a missing exchange: it is no event's trouble.
    const bool holds = returned.mapped().no_queue && ticket.address.named_queue;
    finish(ticket, Verdict::refused, holds ? Remedy::fix_settings : returned.mapped().remedy,
           std::move(returned.mapped().reason), out);
}

bool Lane::confirm(std::uint64_t tag, bool multiple, bool acked, Settlements& out) {
    const std::uint64_t end_tag = first_tag_ + tickets_.size();
    if (tag == 0 && multiple) tag = end_tag - 1;  // "all so far"
    if (tag >= end_tag) return false;
    const auto late = stragglers_.lower_bound(multiple ? 0 : tag);
    for (auto each = late; each != stragglers_.end() && each->first <= tag; each = stragglers_.erase(each))
        confirm_one(each->second, each->first, acked, out);
    given_up_.erase(given_up_.lower_bound(multiple ? 0 : tag), given_up_.upper_bound(tag));
    if (tag < first_tag_) return true;
    for (std::uint64_t each = multiple ? first_tag_ : tag; each <= tag; ++each)
        confirm_one(tickets_[each - first_tag_], each, acked, out);
    drop_settled();
    return true;
}

void Lane::drop_settled() {
    for (; !tickets_.empty(); ++first_tag_) {
        Ticket& oldest = tickets_.front();
        if (!oldest.settled) {
            if (tickets_.size() <= most_in_a_row) break;
            stragglers_.emplace(first_tag_, oldest);
        }
        tickets_.pop_front();
    }
}

void Lane::give_up(TimePoint since, const std::string& reason, Settlements& out) {
    const auto give_up = [&](Ticket& ticket, std::uint64_t tag) {
        if (ticket.since > since) return false;
        if (ticket.settled) return true;
        returned_.erase(tag);
        given_up_.emplace(tag, ticket.event);
        refused->taken(ticket.address);  // what is refused is refused at once
        finish(ticket, Verdict::refused, Remedy::retry, reason + ": " + shown(ticket.address), out);
        return true;
    };
    while (!stragglers_.empty() && give_up(stragglers_.begin()->second, stragglers_.begin()->first))
        stragglers_.erase(stragglers_.begin());
    std::uint64_t tag = first_tag_;
    for (Ticket& ticket : tickets_)
        if (!give_up(ticket, tag++)) break;
    while (given_up_.size() > most_given_up) given_up_.erase(given_up_.begin());
    drop_settled();
}

Lane::Ticket& Lane::at(std::uint64_t tag) {
    return tag < first_tag_ ? stragglers_.at(tag) : tickets_[tag - first_tag_];
}

bool Lane::return_started(unsigned code, std::string_view text, std::string_view exchange,
                          std::string_view routing_key) {
    if (return_) return false;
    passed_over_ = 0;
    const Remedy remedy = code == no_route || code == AMQP_CONTENT_TOO_LARGE ? Remedy::park : Remedy::unclear;
    std::string reason = words(code, text) + ": " + shown({exchange, routing_key});
    const bool no_queue = code == no_route && exchange.empty();
    if (no_queue) reason += "; there is no such queue, declare it";
    return_ = Return{remedy, no_queue, std::move(reason), std::string(exchange), std::string(routing_key)};
    return true;
}

bool Lane::return_header(std::string_view message_id, std::uint64_t body_size) {
    if (!return_) {
        passed_over_ = body_size;
        return true;
    }
    if (return_->has_header) return false;
    const auto event = read_event_id(message_id);
    if (!event || !forget_given_up(*event)) {
        const std::uint64_t tag = returned_tag(*return_, event);
        if (tag == 0) return false;
        returned_.emplace(tag, Returned{return_->remedy, return_->no_queue, std::move(return_->reason)});
        last_returned_ = tag;
    }
    return_->has_header = true;
    return_->left = body_size;
    if (body_size == 0) return_.reset();
    return true;
}

bool Lane::return_body(std::size_t bytes) {
    if (!return_) {
        passed_over_ -= std::min<std::uint64_t>(bytes, passed_over_);
        return true;
    }
    if (!return_->has_header || bytes > return_->left) return false;
    return_->left -= bytes;
    if (return_->left == 0) return_.reset();
    return true;
}

// A message that was given up is older than the same event's next one.
bool Lane::forget_given_up(const EventId& event) {
    for (auto each = given_up_.begin(); each != given_up_.end(); ++each) {
        if (each->second != event) continue;
        given_up_.erase(each);
        return true;
    }
    return false;
}

// Which open ticket a return is about. Its event's id says so; where one event is under way several times, its address
// and the order of returns. Where the id is none of ours (somebody between has changed it), the address says so if
// only one ticket has it. 0: nobody can know.
std::uint64_t Lane::returned_tag(const Return& returned, const std::optional<EventId>& event) const {
    const Address address{returned.exchange, returned.routing_key};
    const auto open = [&](std::uint64_t tag) { return returned_.empty() || !returned_.contains(tag); };
    const auto exact = [&](const Ticket& ticket, std::uint64_t tag) {
        return ticket.event == *event && ticket.address == address && open(tag);
    };
    if (event) {
        if (const auto tag = oldest(exact, last_returned_ + 1)) return tag;
        if (const auto tag = oldest(exact)) return tag;
        const auto tag =
            oldest([&](const Ticket& ticket, std::uint64_t its) { return ticket.event == *event && open(its); });
        if (tag != 0) return tag;
    }
    const auto of_address = [&](const Ticket& ticket, std::uint64_t tag) {
        return ticket.address == address && open(tag);
    };
    const auto tag = oldest(of_address);
    if (tag != 0) return oldest(of_address, tag + 1) == 0 ? tag : 0;
    return open_ == 1 && given_up_.empty() ? oldest([&](const Ticket&, std::uint64_t its) { return open(its); }) : 0;
}

void Lane::distrusted(const std::string& reason, Settlements& out) {
    if (const auto tag = alone()) {
        Ticket& ticket = at(tag);
        refuse(ticket, Remedy::unclear, false, reason + ": " + shown(ticket.address), out);
    } else {
        one_by_one_ = open_;
    }
    lost(reason, out);
}

void Lane::lost(const std::string& reason, Settlements& out) {
    for (auto& [tag, ticket] : stragglers_) finish(ticket, Verdict::unknown, Remedy::retry, reason, out);
    for (Ticket& ticket : tickets_)
        if (!ticket.settled) finish(ticket, Verdict::unknown, Remedy::retry, reason, out);
    tickets_.clear();
    stragglers_.clear();
    given_up_.clear();
    returned_.clear();
    return_.reset();
    passed_over_ = 0;
    channel = 0;
    opening = yields = false;
}

}  // namespace eventbus::broker::amqp
