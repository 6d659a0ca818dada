// What it is: one route's channel: its open tickets, by delivery tag, and what the broker said of them.
// Who calls it: the AMQP driver.
// Never: writes to the socket, or settles a ticket twice.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "broker/amqp/refused.hpp"
#include "core/event_id.hpp"
#include "core/settlement.hpp"

namespace eventbus::broker::amqp {

using Settlements = std::vector<Settlement>;
using TimePoint = std::chrono::steady_clock::time_point;

using Key = std::optional<std::string_view>;  // an event's; borrowed until its ticket settles

std::string shown(const Address& address);

class Lane {
 public:
    std::uint16_t channel = 0;  // 0: none
    bool flow = true;           // false: the broker asked this channel to pause (channel.flow)
    // Of its channel, see channels.hpp.
    bool opening = false;  // the broker has not said yes yet
    bool waits = false;    // for one
    bool yields = false;   // takes no more, so that another lane may have it
    bool used = false;     // in this turn
    TimePoint turn_since{};
    // What the broker has closed a channel for goes out on a lane of its own, aside, one message at a time: the next
    // refusal costs nobody else. Both lanes of a route share what is known of it.
    bool aside = false;
    std::shared_ptr<Refused> refused = std::make_shared<Refused>();

    bool takes(std::size_t window, std::size_t bytes) const;  // one more ticket
    bool idle() const { return open_ == 0; }
    bool has_key(const Key& key) const;  // one of its messages is under way
    std::size_t remembered() const { return tickets_.size() + stragglers_.size() + given_up_.size(); }

    void opened(std::uint16_t number, TimePoint now);
    void take_channel(Lane& from, TimePoint now);  // of a lane that is idle
    void published(std::uint64_t ticket, const EventId& event, std::size_t payload, const Address& address,
                   TimePoint now, const Key& key = {});

    // Since when the oldest open ticket waits; max() where none is open.
    TimePoint waits_since() const;
    // Tickets that have waited since then or longer are refused for now: a queue that does not answer must not keep
    // the window from others. What the broker says of them later is not listened to.
    void give_up(TimePoint since, const std::string& reason, Settlements& out);

    // What follows returns false where the broker speaks of what was never sent, or out of turn: distrusted() then.
    // basic.ack and basic.nack.
    bool confirm(std::uint64_t tag, bool multiple, bool acked, Settlements& out);
    // basic.return comes in pieces (method, header, body frames), in the order of publishing, and before the message's
    // ack. An empty message_id is one that could not be read. Content that belongs to no return is passed over.
    bool return_started(unsigned code, std::string_view text, std::string_view exchange, std::string_view routing_key);
    bool return_header(std::string_view message_id, std::uint64_t body_size);
    bool return_body(std::size_t bytes);

    // The broker closed the channel.
    void closed(unsigned code, std::string_view text, Settlements& out);
    // We did, because what was said on it fits nothing.
    void distrusted(const std::string& reason, Settlements& out);
    // All open tickets become unknown, and the channel is gone.
    void lost(const std::string& reason, Settlements& out);

 private:
    struct Ticket {
        std::uint64_t id;
        EventId event;
        Address address;
        Key key;
        std::size_t payload;
        TimePoint since;
        bool settled;
    };
    struct Return {
        Remedy remedy = Remedy::park;
        bool no_queue = false;
        std::string reason;
        std::string exchange;
        std::string routing_key;
        bool has_header = false;
        std::uint64_t left = 0;  // of the body
    };
    struct Returned {
        Remedy remedy;
        bool no_queue;  // where the default exchange leads to
        std::string reason;
    };
    struct Blame {
        Ticket* ticket = nullptr;
        Remedy remedy = Remedy::retry;
        bool whole_exchange = false;
    };
    void confirm_one(Ticket& ticket, std::uint64_t tag, bool acked, Settlements& out);
    void refuse(Ticket& ticket, Remedy remedy, bool whole_exchange, std::string reason, Settlements& out);
    void finish(Ticket& ticket, Verdict verdict, Remedy remedy, std::string reason, Settlements& out);
    void drop_settled();
    // The tag of the oldest open ticket that fits; 0: there is none.
    template <typename Fits>
    std::uint64_t oldest(Fits fits, std::uint64_t from = 0) const {
        for (auto each = stragglers_.lower_bound(from); each != stragglers_.end(); ++each)
            if (fits(each->second, each->first)) return each->first;
        for (std::uint64_t tag = std::max(from, first_tag_); tag < first_tag_ + tickets_.size(); ++tag) {
            const Ticket& ticket = tickets_[tag - first_tag_];
            if (!ticket.settled && fits(ticket, tag)) return tag;
        }
        return 0;
    }
    Ticket& at(std::uint64_t tag);
    std::uint64_t returned_tag(const Return& returned, const std::optional<EventId>& event) const;
    bool forget_given_up(const EventId& event);
    std::uint64_t named_tag(std::string_view text, bool topic) const;
    std::uint64_t alone() const {
        return open_ == 1 ? oldest([](const Ticket&, std::uint64_t) { return true; }) : 0;
    }
    Blame blame(unsigned code, std::string_view text);

    std::deque<Ticket> tickets_;  // tags first_tag_ … in a row; the first one is open
    std::uint64_t first_tag_ = 1;
    std::map<std::uint64_t, Ticket> stragglers_;  // open ones that many later ones have overtaken
    std::map<std::uint64_t, EventId> given_up_;   // refused by give_up(), not answered yet
    std::size_t open_ = 0;                        // not settled
    std::size_t bytes_ = 0;                       // of their payloads
    std::size_t one_by_one_ = 0;     // after a failure that no ticket could be blamed for: so many go out alone
    std::optional<Return> return_;   // the one being received
    std::uint64_t passed_over_ = 0;  // of a body that belongs to no return, still to come
    std::unordered_map<std::uint64_t, Returned> returned_;  // by tag: why
    std::uint64_t last_returned_ = 0;
};

}  // namespace eventbus::broker::amqp
