// What it is: what streams already hold of ours, so that an event of an uncertain past is not added twice.
// Who calls it: the Redis driver, for events that an earlier connection may have sent.
// Never: costs anything for events published after the connection was begun, or trusts an id alone.
//
// An event that is offered again after a lost connection or a crash may stand in its stream already. It can only
// do so if it was published before this connection was begun (or seems to be published only later: somebody has set
// the clock back). For such events the driver
//  1. waits until the server has done with our earlier connections (CLIENT LIST knows them by our name): what
//     they sent may still be on its way into the stream;
//  2. reads the stream backwards (XREVRANGE) from its end to the time when the event was published, by the server's
//     clock (TIME);
//  3. takes an event whose id, time and source stand there for delivered, once for every copy. Of a message whose time
//     the WAL does not know it takes id, payload and source.
// A server that does not let us ask (ACL), or a consumer that has deleted the entry, leaves us at least once.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "broker/driver.hpp"
#include "broker/redis/replies.hpp"

namespace eventbus::broker::redis {

// One stream's end, as far back as it has been read.
class Tail {
 public:
    explicit Tail(std::string_view name) : name_(name) {}

    // Everything that was added since then, with an allowance for clocks that differ, is known.
    bool reaches(std::int64_t published_us) const { return known_ms_ <= from_ms(published_us); }
    // Writes the request for the next page, unless one is under way or enough is known.
    bool ask(std::string& outbox, std::int64_t published_us);
    bool ask_on(std::string& outbox);
    void take(const std::vector<StreamEntry>& page);
    void give_up();  // the server does not tell: what is known must do
    // Whether the stream holds the event; each copy answers once.
    bool take_copy(const Event& event);
    bool waiting() const { return waiting_; }

 private:
    static std::int64_t from_ms(std::int64_t published_us);

    std::string name_;
    bool waiting_ = false;
    std::int64_t wanted_ms_ = INT64_MAX;
    std::int64_t asked_ms_ = INT64_MAX;
    std::int64_t known_ms_ = INT64_MAX;
    std::string before_ = "+";  // where the next page begins
    std::size_t page_ = 4;      // entries to ask for
    std::size_t ours_ = 0;
    std::size_t bytes_ = 0;
    std::unordered_multimap<EventId, EntryMark> copies_;
};

class StreamHistory {
 public:
    // The connection is begun now; started_us is the wall clock.
    StreamHistory(const BrokerSettings& settings, std::int64_t started_us, TimePoint started);

    // By this name the server knows the connections of one database's broker.
    const std::string& client_name() const { return client_name_; }

    // The wall clock, which somebody may set while the connection lasts.
    void clock_is(std::int64_t now_us, TimePoint now);
    // Whether the event may have been sent before: it was published before the connection was begun, by one of the
    // clocks that there have been since, or by one that was ahead of the present one. Of a timeless one nobody knows
    // when.
    bool concerns(const Outgoing& outgoing) const {
        const auto published = outgoing.event->published_at;
        return (published < started_us_ || published > future_us_ || outgoing.event->is_timeless) &&
               outgoing.addressing->kind == "stream";
    }
    // It was not sent before then, by the server's clock.
    std::int64_t since(const Event& event) const {
        return std::min(event.published_at + ahead_us_, servers_started_us_);
    }
    Tail& tail(std::string_view stream);

    // The wait for our earlier connections to end.
    enum class Fence : std::uint8_t { unasked, asked, waiting, clear };
    Fence fence = Fence::unasked;
    TimePoint ask_again_at{};
    // Asks for the server's time as well, the first time; its answer comes first.
    bool ask_fence(std::string& outbox);
    void take_time(std::int64_t servers_us, std::int64_t now_us, TimePoint now);
    void take_fence(std::string_view client_list, TimePoint now);

 private:
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
    };
    void forget_some();

    TimePoint started_;
    std::int64_t clock_us_;            // the most that our clock has been ahead of the steady one since,
    std::int64_t started_us_;          // by that one, with an allowance,
    std::int64_t servers_started_us_;  // and by the server's
    std::int64_t future_us_ = INT64_MAX;
    std::int64_t ahead_us_ = 0;  // the server's clock of ours, when it was asked
    std::string client_name_;
    TimePoint fence_deadline_ = TimePoint::max();
    std::unordered_map<std::string, Tail, Hash, std::equal_to<>> tails_;
};

}  // namespace eventbus::broker::redis
