// What it is: the AMQP 0-9-1 driver: one connection, one channel a lane, publisher confirms and mandatory returns.
// Who calls it: delivery, through broker::Driver; the module makes it.
// Never: blocks, logs or retries.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "broker/amqp/amqp_inquiry.hpp"
#include "broker/amqp/amqp_message.hpp"
#include "broker/amqp/channels.hpp"
#include "broker/amqp/frame.hpp"
#include "broker/amqp/lane.hpp"
#include "broker/amqp/login.hpp"
#include "broker/amqp/methods.hpp"
#include "broker/driver.hpp"
#include "broker/stream/stream.hpp"

namespace eventbus::broker::amqp {

class AmqpDriver final : public Driver {
 public:
    AmqpDriver(const BrokerSettings& settings, unsigned attempt, TimePoint now);
    ~AmqpDriver() override;

    Interest interest() const override;
    TimePoint wake_at() const override;
    Link drive(Ready ready, TimePoint now) override;
    bool offer(const Outgoing& outgoing) override;
    std::size_t settle(std::span<Settlement> out) override;
    void look_at(const Target& target) override;
    Look look() const override;

 private:
    // What we wait for.
    enum class Phase : std::uint8_t { stream, start, tune, open_ok, up, down };

    bool take_inbox(TimePoint now);
    void receive();
    void on_frame(const Frame& frame);
    void on_connection_method(const Method& method);
    void on_login_method(const Method& method);
    void on_connection_close(const Method& close);
    void on_lane_frame(Lane& lane, const Frame& frame);
    void on_lane_method(Lane& lane, const Method& method);
    void on_closing_channel(std::uint16_t channel, const Frame& frame);

    Lane* lane_for(const Outgoing& outgoing);
    void want_channel(Lane& lane);
    void begin_to_publish();
    void too_many_channels(std::string reason);
    void distrust(Lane& lane);
    void close_channel(Lane& lane, std::uint16_t code, const char* text);
    TimePoint opened_by() const;
    void keep_time(TimePoint now);
    void flush(TimePoint now);
    TimePoint patient_until(const Lane& lane) const;
    void give_up_on_silence(TimePoint now);
    void fail(Remedy remedy, std::string reason, bool goodbye = false);
    std::string lost_stream() const;
    Link link() const;

    template <typename Fields>
    void send(std::uint16_t channel, amqp_method_number_t id, const Fields& fields) {
        frames_.method(stream_.outbox(), channel, id, &fields);
    }
    // What the broker makes us say as often as it likes.
    template <typename Fields>
    void answer(std::uint16_t channel, amqp_method_number_t id, const Fields& fields) {
        const std::size_t before = stream_.outbox().size();
        send(channel, id, fields);
        if (!stream_.may_answer(stream_.outbox().size() - before)) fail(Remedy::retry, Stream::reads_no_answers);
    }

    const BrokerSettings settings_;
    const ClientSettings client_;
    Stream stream_;
    FrameWriter frames_;
    MessageWriter messages_;
    Limits limits_;
    std::optional<Inquiry> inquiry_;  // of a driver that only looks

    Phase phase_ = Phase::stream;
    bool blocked_ = false;
    Remedy remedy_ = Remedy::none;  // when down
    std::string reason_;            // when down or blocked
    bool was_up_ = false;           // logged in
    bool goodbye_ = false;          // the broker was told to go

    TimePoint deadline_;  // of this phase, until the connection is up: a slow way has several round trips
    TimePoint last_received_;
    TimePoint last_sent_;
    TimePoint now_;         // of the last drive()
    bool stuck_ = false;    // at its end: the broker took nothing, or not all
    TimePoint free_since_;  // since then it takes all
    std::chrono::milliseconds patience_;
    std::size_t leftover_ = 0;  // of the inbox: part of a frame
    bool written_ = false;      // since the last drive(): it is to be called at once

    std::unordered_map<std::uint64_t, Lane> lanes_;  // by route; and the ones aside, see lane_for()
    Channels channels_;
    const std::shared_ptr<ChannelLimit> channel_limit_;
    bool published_ = false;  // on this connection

    Settlements settlements_;
    std::size_t settled_ = 0;  // of them, drained
};

}  // namespace eventbus::broker::amqp
