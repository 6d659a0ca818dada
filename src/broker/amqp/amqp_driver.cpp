// What it is: the AMQP 0-9-1 driver: what goes out, time, and the faces of broker::Driver; see amqp_driver.hpp.
// Who calls it: delivery, through broker::Driver.
// Never: blocks, logs or retries.
#include "broker/amqp/amqp_driver.hpp"

#include <algorithm>
#include <utility>

#include "broker/stream/other_protocols.hpp"

namespace eventbus::broker::amqp {

namespace {

// Measured, see README.md: beyond it there is nothing to gain but duplicates after a fault.
constexpr std::size_t default_window = 2000;
// Payloads that await their confirms, a lane; bytes that await the socket, in all. Both let the message through
// that steps over the limit, so that the largest one always finds its way.
constexpr std::size_t most_unconfirmed = 1 << 20;
constexpr std::size_t most_unsent = 1 << 20;
constexpr std::chrono::milliseconds most_patience{600'000};

const Host& pick_host(const BrokerSettings& settings, unsigned attempt) {
    return settings.url.hosts[attempt % settings.url.hosts.size()];
}

std::string seconds(std::uint32_t ms) {
    return ms % 1000 == 0 ? std::to_string(ms / 1000) + " s" : std::to_string(ms) + " ms";
}

}  // namespace

AmqpDriver::AmqpDriver(const BrokerSettings& settings, unsigned attempt, TimePoint now)
    : settings_(settings),
      client_(settings),
      stream_(pick_host(settings, attempt), tls_settings(settings, settings.url.scheme == "amqps")),
      messages_(settings.source),
      deadline_(now + std::chrono::milliseconds(client_.connect_timeout_ms)),
      last_received_(now),
      last_sent_(now),
      now_(now),
      free_since_(now),
      patience_(options_of(settings).confirm_timeout_s * 1000),
      channel_limit_(channel_limit_of(settings)) {
    if (settings.look_ms > 0) inquiry_.emplace();
}

// Says good-bye where that takes no waiting, so that the broker's log shows no connection cut off.
AmqpDriver::~AmqpDriver() {
    if (phase_ != Phase::up || stream_.state() != Stream::State::open || stream_.unsent() > 0) return;
    const amqp_connection_close_t close{
        .reply_code = AMQP_REPLY_SUCCESS, .reply_text = to_bytes("good-bye"), .class_id = 0, .method_id = 0};
    send(0, AMQP_CONNECTION_CLOSE_METHOD, close);
    stream_.flush();
}

Interest AmqpDriver::interest() const {
    return phase_ == Phase::down ? Interest() : stream_.interest();
}

TimePoint AmqpDriver::wake_at() const {
    if (written_ || settled_ < settlements_.size()) return TimePoint::min();
    if (phase_ == Phase::down) return TimePoint::max();
    const bool up = phase_ == Phase::up;
    TimePoint due = up ? TimePoint::max() : deadline_;
    for (const auto& [id, lane] : lanes_) due = std::min(due, patient_until(lane));
    due = std::min({due, channels_.due(now_), opened_by()});
    if (limits_.heartbeat_s == 0) return due;
    const std::chrono::milliseconds interval(limits_.heartbeat_s * 1000);
    if (up) due = std::min(due, last_received_ + 2 * interval);
    return stream_.unsent() > 0 ? due : std::min(due, last_sent_ + interval / 2);
}

Link AmqpDriver::drive(Ready ready, TimePoint now) {
    if (phase_ == Phase::down) return link();
    now_ = now;
    if (stuck_) free_since_ = now;
    written_ = false;
    const Phase before = phase_;
    const std::size_t unsent = stream_.unsent();
    stream_.drive(ready);
    if (stream_.unsent() < unsent) last_sent_ = now;
    if (phase_ == Phase::stream && stream_.state() == Stream::State::open) {
        stream_.write(protocol_header);
        phase_ = Phase::start;
    }
    take_inbox(now);
    if (phase_ != before && !inquiry_) deadline_ = now + std::chrono::milliseconds(client_.connect_timeout_ms);
    if (phase_ != Phase::down) keep_time(now);
    if (phase_ == Phase::up) channels_.hand_over(now);
    if (phase_ != Phase::down) flush(now);
    stuck_ = blocked_ || stream_.unsent() > 0;
    if (phase_ == Phase::up) give_up_on_silence(now);
    if (phase_ != Phase::down && stream_.state() == Stream::State::closed) take_inbox(now);  // its last words
    if (phase_ != Phase::down && stream_.state() == Stream::State::closed)
        fail(stream_.is_settings_error() || phase_ == Phase::tune ? Remedy::fix_settings : Remedy::retry,
             lost_stream());
    return link();
}

// False when nothing has come.
bool AmqpDriver::take_inbox(TimePoint now) {
    if (stream_.inbox().size() == leftover_) return false;
    last_received_ = now;
    receive();
    leftover_ = stream_.inbox().size();
    return true;
}

std::string AmqpDriver::lost_stream() const {
    switch (phase_) {
        case Phase::start:
            return "connection lost before the broker's greeting: " + stream_.error() +
                   (stream_.left() ? if_it_wants_tls(settings_.url.scheme) : "");
        case Phase::tune:
            return "login refused: the broker closed the connection: " + stream_.error();
        case Phase::open_ok:
            return "connection lost while the virtual host was opened: " + stream_.error();
        default:
            return stream_.error();
    }
}

void AmqpDriver::flush(TimePoint now) {
    const std::size_t unsent = stream_.unsent();
    if (unsent == 0) return;
    stream_.flush();
    if (stream_.unsent() < unsent) last_sent_ = now;
}

void AmqpDriver::keep_time(TimePoint now) {
    if (phase_ != Phase::up && now >= deadline_) {
        const std::string limit = " within " + seconds(client_.connect_timeout_ms);
        if (phase_ == Phase::stream) return fail(Remedy::retry, stream_.missing() + limit);
        if (phase_ == Phase::start) return fail(Remedy::retry, "the broker did not greet" + limit);
        return fail(Remedy::retry, "the broker did not finish the login" + limit);
    }
    if (phase_ == Phase::up && now >= opened_by())
        return fail(Remedy::retry, "the broker did not open a channel within " + seconds(client_.connect_timeout_ms));
    if (limits_.heartbeat_s == 0) return;
    const std::chrono::milliseconds interval(limits_.heartbeat_s * 1000);
    if (phase_ == Phase::up && now >= last_received_ + 2 * interval) {
        // Our own process may have slept: what has come meanwhile counts.
        stream_.drive({.read = true, .write = false});
        if (!take_inbox(now) && stream_.state() == Stream::State::open)
            return fail(Remedy::retry, "no heartbeat for " + seconds(2000 * limits_.heartbeat_s));
        if (phase_ == Phase::down || stream_.state() == Stream::State::closed) return;
    }
    if (now >= last_sent_ + interval / 2 && stream_.unsent() == 0) frames_.heartbeat(stream_.outbox());
}

// While the broker takes nothing from us, no ticket grows older.
TimePoint AmqpDriver::patient_until(const Lane& lane) const {
    if (patience_.count() == 0 || stuck_ || lane.idle()) return TimePoint::max();
    return std::max(lane.waits_since(), free_since_) + patience_;
}

// An acknowledgement may never come: the majority of a quorum queue is gone, a queue hangs. Where it is merely slow,
// more patience saves repetitions.
void AmqpDriver::give_up_on_silence(TimePoint now) {
    const std::size_t before = settlements_.size();
    for (auto& [id, lane] : lanes_) {
        if (patient_until(lane) > now) continue;
        const auto waited = std::to_string(patience_.count() / 1000);
        lane.give_up(now - patience_, "no acknowledgement within " + waited + " s", settlements_);
    }
    if (settlements_.size() > before) patience_ = std::min(2 * patience_, std::max(patience_, most_patience));
}

void AmqpDriver::fail(Remedy remedy, std::string reason, bool goodbye) {
    phase_ = Phase::down;
    remedy_ = remedy;
    goodbye_ = goodbye;
    reason_ = std::move(reason);
    for (auto& [id, lane] : lanes_) lane.lost(reason_, settlements_);
    stream_.close(reason_);
}

Link AmqpDriver::link() const {
    switch (phase_) {
        case Phase::down:
            return {LinkState::down, remedy_, reason_, goodbye_};
        case Phase::up:
            if (blocked_) return {LinkState::blocked, Remedy::none, reason_};
            return {LinkState::up, Remedy::none, {}};
        default:
            return {};
    }
}

bool AmqpDriver::offer(const Outgoing& outgoing) {
    if (phase_ != Phase::up || blocked_ || inquiry_ || stream_.unsent() >= most_unsent) return false;
    Lane* const its = lane_for(outgoing);
    if (its == nullptr) return false;
    Lane& lane = *its;
    if (lane.channel == 0) want_channel(lane);
    if (!lane.takes(settings_.options.window > 0 ? settings_.options.window : default_window, most_unconfirmed))
        return false;
    if (!published_) {
        if (channels_.opening() > 0) return false;  // a refusal would cost what is under way
        begin_to_publish();
    }
    written_ = true;
    std::string problem = messages_.write(frames_, stream_.outbox(), lane.channel, outgoing);
    if (problem.empty())
        lane.published(outgoing.ticket, outgoing.event->id, outgoing.event->payload.size(), address_of(outgoing), now_,
                       outgoing.event->key);
    else
        settlements_.push_back({outgoing.ticket, Verdict::refused, Remedy::park, std::move(problem)});
    return true;
}

// The route's lane; another one for an address that the broker has closed a channel for. Two channels keep no order
// between them, so that what has one key waits for what the other one holds of it.
Lane* AmqpDriver::lane_for(const Outgoing& outgoing) {
    constexpr std::uint64_t is_aside = std::uint64_t{1} << 32;
    Lane& lane = lanes_[outgoing.lane];
    if (lane.refused->empty()) return &lane;
    Lane& aside = lanes_[outgoing.lane | is_aside];
    if (!aside.aside) {
        aside.aside = true;
        aside.refused = lane.refused;
    }
    const bool goes_aside = lane.refused->has(address_of(outgoing));
    if ((goes_aside ? lane : aside).has_key(outgoing.event->key)) return nullptr;
    return goes_aside ? &aside : &lane;
}

void AmqpDriver::want_channel(Lane& lane) {
    const std::uint16_t number = channels_.want(lane, now_);
    if (number == 0) return;
    send(number, AMQP_CHANNEL_OPEN_METHOD, amqp_channel_open_t{});
    send(number, AMQP_CONFIRM_SELECT_METHOD, amqp_confirm_select_t{.nowait = 0});
    written_ = true;
}

// Whatever channels were wanted so far are open. Where they are more than used to fit, there is no such limit now.
void AmqpDriver::begin_to_publish() {
    published_ = true;
    if (channel_limit_->most == 0) return;
    if (channels_.open() > channel_limit_->most)
        channel_limit_->most = 0;
    else
        channels_.limit(limits_.channel_max, channel_limit_->most, channel_limit_->counted_for);
}

// Says nothing while the broker takes nothing from us.
TimePoint AmqpDriver::opened_by() const {
    if (channels_.opening() == 0 || stuck_) return TimePoint::max();
    return std::max(channels_.opening_since(), free_since_) + std::chrono::milliseconds(client_.connect_timeout_ms);
}

void AmqpDriver::look_at(const Target& target) {
    if (inquiry_) inquiry_->look_at(target);
}

Look AmqpDriver::look() const {
    Look look;
    if (!inquiry_ || !stream_.look(look)) return look;
    look.step = "login";
    if (!was_up_) return look;
    const Url& url = settings_.url;
    look.found("login", (url.has_user || settings_.options.cert_file.empty()
                             ? "as user \"" + printable(url.has_user ? url.user : "guest") + '"'
                             : std::string("by the client certificate, or as user \"guest\"")) +
                            ", virtual host \"" + printable(client_.vhost) + '"');
    look.step = "broker";
    inquiry_->tell(look, limits_);
    if (blocked_)
        look.found("broker", "the broker takes no messages for now: " + reason_, Finding::Answer::no,
                   "Look at the broker's memory and disk.");
    look.done = inquiry_->done() && phase_ == Phase::up;
    return look;
}

std::size_t AmqpDriver::settle(std::span<Settlement> out) {
    return drain(settlements_, settled_, out);
}

}  // namespace eventbus::broker::amqp
