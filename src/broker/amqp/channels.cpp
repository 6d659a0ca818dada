// What it is: a connection's channels; see channels.hpp.
// Who calls it: the AMQP driver.
// Never: writes to the socket, or takes a channel from a lane whose messages are under way on it.
#include "broker/amqp/channels.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

namespace eventbus::broker::amqp {

namespace {

constexpr std::chrono::milliseconds turn{100};       // some round trips
constexpr std::chrono::milliseconds first_offer{5};  // until then an idle lane may not have been asked

}  // namespace

std::shared_ptr<ChannelLimit> channel_limit_of(const BrokerSettings& settings) {
    static std::map<std::string, std::shared_ptr<ChannelLimit>> limits;
    std::string who = settings.name + " " + settings.url.scheme + " " + settings.url.user + " " + settings.url.path;
    for (const Host& host : settings.url.hosts) who += " " + host.shown();
    auto& limit = limits[who];
    if (!limit) limit = std::make_shared<ChannelLimit>();
    return limit;
}

std::uint16_t Channels::want(Lane& lane, TimePoint now) {
    std::uint16_t number = 0;
    if (open_ + opening_ + (are_few() ? resting(now) : 0) < most_) {
        if (!free_.empty()) {
            number = free_.back();
            free_.pop_back();
        } else if (lanes_.size() <= highest_) {
            number = static_cast<std::uint16_t>(lanes_.size());
            lanes_.push_back(nullptr);
        }
    }
    if (number != 0) {
        if (opening_++ == 0) opening_since_ = now;
        lanes_[number] = &lane;  // lanes stay where they are: unordered_map
        if (std::exchange(lane.waits, false)) std::erase(waiting_, &lane);
        lane.opened(number, now);
    } else if (!lane.waits) {
        lane.waits = true;
        waiting_.push_back(&lane);
        hand_over(now);
    }
    return number;
}

void Channels::opened(Lane& lane) {
    if (!lane.opening) return;
    lane.opening = false;
    --opening_;
    most_open_ = std::max(most_open_, ++open_);
}

void Channels::leave(Lane& lane) {
    --(lane.opening ? opening_ : open_);
    lanes_[lane.channel] = nullptr;
}

void Channels::rest(std::uint16_t number, TimePoint now) {
    free_.push_back(number);
    while (!closed_at_.empty() && closed_at_.front() + counted_for_ <= now) closed_at_.pop_front();
    closed_at_.push_back(now);
}

std::size_t Channels::resting(TimePoint now) const {
    const auto is_over = [&](TimePoint at) { return at + counted_for_ <= now; };
    return static_cast<std::size_t>(closed_at_.end() - std::find_if_not(closed_at_.begin(), closed_at_.end(), is_over));
}

void Channels::closed(Lane& lane, TimePoint now) {
    leave(lane);
    rest(lane.channel, now);
}

void Channels::closing(Lane& lane) {
    leave(lane);
    closing_.push_back(lane.channel);
}

void Channels::free(std::uint16_t number, TimePoint now) {
    if (std::erase(closing_, number) > 0) rest(number, now);
}

void Channels::give(Lane& from, Lane& to, TimePoint now) {
    lanes_[from.channel] = &to;
    to.take_channel(from, now);
    to.waits = false;
}

bool Channels::may_give(const Lane& lane, TimePoint now) {
    return lane.idle() && !lane.opening && (lane.used || now >= lane.turn_since + first_offer);
}

void Channels::hand_over(TimePoint now) {
    if (waiting_.empty()) return;
    std::vector<Lane*> had_their_turn;
    for (Lane* lane : lanes_) {
        if (lane == nullptr || lane->opening) continue;
        lane->yields = false;
        if (!waiting_.empty() && may_give(*lane, now)) {
            give(*lane, *waiting_.front(), now);
            waiting_.pop_front();
        } else if (!lane->idle() && now >= lane->turn_since + turn) {
            had_their_turn.push_back(lane);
        }
    }
    const std::size_t wanted = std::min(waiting_.size(), had_their_turn.size());
    const auto longest_first = [](const Lane* one, const Lane* other) { return one->turn_since < other->turn_since; };
    std::partial_sort(had_their_turn.begin(), had_their_turn.begin() + static_cast<std::ptrdiff_t>(wanted),
                      had_their_turn.end(), longest_first);
    for (std::size_t i = 0; i < wanted; ++i) had_their_turn[i]->yields = true;
}

TimePoint Channels::due(TimePoint now) const {
    TimePoint due = TimePoint::max();
    if (waiting_.empty()) return due;
    if (const auto resting = this->resting(now))
        due = *(closed_at_.end() - static_cast<std::ptrdiff_t>(resting)) + counted_for_;
    TimePoint turn_ends = due;
    std::size_t yielding = 0;
    for (const Lane* lane : lanes_) {
        if (lane == nullptr || lane->opening) continue;
        if (lane->idle())
            due = std::min(due, lane->turn_since + first_offer);
        else if (lane->yields)
            ++yielding;
        else
            turn_ends = std::min(turn_ends, lane->turn_since + turn);
    }
    return yielding < waiting_.size() ? std::min(due, turn_ends) : due;
}

}  // namespace eventbus::broker::amqp
