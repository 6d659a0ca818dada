// What it is: one route's channel: its open tickets, by delivery tag, and what the broker said of them.
// Who calls it: the AMQP driver.
// Never: writes to the socket, or settles a ticket twice.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/settlement.hpp"

namespace eventbus::broker::amqp {

using Settlements = std::vector<Settlement>;
using TimePoint = std::chrono::steady_clock::time_point;

class Lane {
 public:
    std::uint16_t channel = 0;  // 0: none
    bool flow = true;           // false: the broker asked this channel to pause (channel.flow)

    bool takes(std::size_t window, std::size_t bytes) const;  // one more ticket
    bool idle() const { return open_ == 0; }

    void opened(std::uint16_t number);
    void published(std::uint64_t ticket, std::int64_t event_id, std::size_t payload, std::string_view exchange,
                   TimePoint now);

    // Since when the oldest open ticket waits; max() where none is open.
    TimePoint waits_since() const { return tickets_.empty() ? TimePoint::max() : tickets_.front().since; }
    // Tickets that have waited since then or longer are refused for now: a queue that does not answer must not keep
    // the window from others. What the broker says of them later is not listened to.
    void give_up(TimePoint since, const std::string& reason, Settlements& out);

    // basic.ack and basic.nack. False: the broker speaks of what was never sent.
    bool confirm(std::uint64_t tag, bool multiple, bool acked, Settlements& out);

    // basic.return comes in pieces (method, header, body frames), and before the message's ack. All return
    // false for what doesn't fit: a message that isn't ours, a piece out of turn.
    bool return_started(std::string reason);
    bool return_header(std::string_view message_id, std::uint64_t body_size);
    bool return_body(std::size_t bytes);

    // The broker closed the channel.
    void closed(unsigned code, std::string_view text, Settlements& out);
    // All open tickets become unknown, and the channel is gone.
    void lost(const std::string& reason, Settlements& out);

 private:
    struct Ticket {
        std::uint64_t id;
        std::int64_t event_id;
        std::size_t payload;
        std::size_t exchange;  // hash of its name
        TimePoint since;
        bool settled;
    };
    struct Return {
        std::string reason;
        bool has_header = false;
        std::uint64_t left = 0;  // of the body
    };
    void confirm_one(std::uint64_t tag, bool acked, Settlements& out);
    void finish(Ticket& ticket, Settlement settlement, Settlements& out);
    void drop_settled();
    Ticket* culprit(unsigned code, std::string_view text);

    std::deque<Ticket> tickets_;  // tags first_tag_ … in a row, the settled ones in front removed
    std::uint64_t first_tag_ = 1;
    std::size_t open_ = 0;          // not settled
    std::size_t bytes_ = 0;         // of their payloads
    std::size_t one_by_one_ = 0;    // after a failure that no ticket could be blamed for: so many go out alone
    std::optional<Return> return_;  // the one being received
    std::unordered_map<std::uint64_t, std::string> returned_;  // by tag: why
};

}  // namespace eventbus::broker::amqp
