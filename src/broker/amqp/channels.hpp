// What it is: a connection's channels: which lane has which; who waits for one where the broker allows too few.
// Who calls it: the AMQP driver.
// Never: writes to the socket, or takes a channel from a lane whose messages are under way on it.
//
// Each lane has a channel of its own while there are enough: what closes it is then nobody else's trouble. Where the
// broker allows fewer, the lanes take turns: one that waits gets the channel of one that has nothing under way, and
// those that have had theirs for a while take no more until they have nothing under way. RabbitMQ counts a user's
// channels a little late: the place of one that was closed is taken again after a while.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "broker/amqp/lane.hpp"
#include "core/broker_settings.hpp"

namespace eventbus::broker::amqp {

// What a broker has taught us on earlier connections. Its limits of a user and of a node are not told at login, but by
// closing the connection, with all that is under way on it.
struct ChannelLimit {
    std::size_t most = 0;  // so many channels fit; 0: no limit is known
    TimePoint learned{};
    bool doubted = false;                        // the last connection did not get so many
    std::chrono::milliseconds counted_for{200};  // a channel that was closed, as far as we have seen
};
std::shared_ptr<ChannelLimit> channel_limit_of(const BrokerSettings& settings);

class Channels {
 public:
    // highest: number of a channel, as agreed at login. most: at once.
    void limit(std::size_t highest, std::size_t most, std::chrono::milliseconds counted_for) {
        highest_ = highest;
        most_ = std::min(most, highest);
        counted_for_ = counted_for;
    }

    bool knows(std::uint16_t number) const { return number < lanes_.size(); }
    Lane* at(std::uint16_t number) const { return lanes_[number]; }  // null: closing or free
    std::size_t open() const { return open_; }
    std::size_t opening() const { return opening_; }
    TimePoint opening_since() const { return opening_since_; }
    // How many the broker let us have at once, where it refuses another one now.
    std::size_t fit(TimePoint now) const { return open_ + resting(now); }
    std::size_t most_open() const { return most_open_; }  // ever on this connection
    bool are_few() const { return most_ < highest_; }     // then one is handed on rather than closed

    // For a lane without a channel. A number: it is to be opened. 0: the lane got another one's channel, or waits.
    std::uint16_t want(Lane& lane, TimePoint now);
    void opened(Lane& lane);                         // the broker said yes
    void closed(Lane& lane, TimePoint now);          // by the broker; before the lane is told
    void closing(Lane& lane);                        // by us; before the lane is told
    void free(std::uint16_t number, TimePoint now);  // the broker has seen it

    void hand_over(TimePoint now);
    TimePoint due(TimePoint now) const;  // of hand_over(), or of want()

 private:
    void leave(Lane& lane);
    void rest(std::uint16_t number, TimePoint now);
    std::size_t resting(TimePoint now) const;
    void give(Lane& from, Lane& to, TimePoint now);
    static bool may_give(const Lane& lane, TimePoint now);

    std::vector<Lane*> lanes_ = {nullptr};  // by channel number; 0 is the connection's own
    std::vector<std::uint16_t> free_;
    std::vector<std::uint16_t> closing_;
    std::deque<TimePoint> closed_at_;  // what may be counted by the broker still
    std::deque<Lane*> waiting_;
    std::size_t highest_ = 0;
    std::size_t most_ = 0;
    std::chrono::milliseconds counted_for_{};
    std::size_t open_ = 0;  // the broker said yes
    std::size_t most_open_ = 0;
    std::size_t opening_ = 0;  // it has not said anything yet
    TimePoint opening_since_{};
};

}  // namespace eventbus::broker::amqp
