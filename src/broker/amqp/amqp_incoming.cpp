// What it is: the AMQP 0-9-1 driver: what the broker says; see amqp_driver.hpp.
// Who calls it: drive().
// Never: trusts a frame that does not fit the moment.
#include "broker/amqp/amqp_driver.hpp"

namespace eventbus::broker::amqp {

namespace {

// Then a new connection tries again what used to be too many, before it sends anything else.
constexpr std::chrono::minutes limit_is_old_after{10};
constexpr std::chrono::milliseconds longest_counted{10'000};

// Words of a connection's end, and the method that they are about, where the broker says so.
std::string words_of(const Method& close) {
    std::string shown = words(close.code, close.text);
    const char* method = close.about >> 16 == 0 ? nullptr : amqp_method_name(close.about);
    return method == nullptr ? shown : shown + " (" + method + ")";
}

}  // namespace

void AmqpDriver::receive() {
    if (phase_ == Phase::start) {
        const std::string_view greeting = stream_.inbox();
        if (std::string problem = not_amqp(greeting, settings_.url.scheme); !problem.empty())
            return fail(Remedy::retry, problem);
        if (!greeting.starts_with(static_cast<char>(AMQP_FRAME_METHOD))) return;  // the rest of it is still to come
    }
    std::size_t consumed = 0;
    while (phase_ != Phase::down) {
        Frame frame;
        const Framing framing = read_frame(stream_.inbox().substr(consumed), limits_.frame_max, frame);
        if (framing == Framing::broken) return fail(Remedy::retry, "the broker sent a malformed frame");
        if (framing == Framing::partial) break;
        consumed += frame.size;
        on_frame(frame);
    }
    if (phase_ != Phase::down) stream_.consume(consumed);
}

void AmqpDriver::on_frame(const Frame& frame) {
    if (frame.type == AMQP_FRAME_HEARTBEAT) return;
    if (frame.channel == 0) {
        if (frame.type == AMQP_FRAME_METHOD) on_connection_method(read_method(frame.payload));
    } else if (inquiry_) {
        if (frame.channel == Inquiry::channel && inquiry_->take(frame))
            send(frame.channel, AMQP_CHANNEL_CLOSE_OK_METHOD, amqp_channel_close_ok_t{});
    } else if (channels_.knows(frame.channel)) {
        if (Lane* lane = channels_.at(frame.channel))
            on_lane_frame(*lane, frame);
        else
            on_closing_channel(frame.channel, frame);
    }
}

void AmqpDriver::on_connection_method(const Method& method) {
    if (!method.is_whole) return fail(Remedy::retry, "the broker sent a malformed method");
    switch (method.id) {
        case AMQP_CONNECTION_CLOSE_METHOD:
            return on_connection_close(method);
        case AMQP_CONNECTION_BLOCKED_METHOD:
            blocked_ = true;
            reason_ = printable(method.text);
            return;
        case AMQP_CONNECTION_UNBLOCKED_METHOD:
            blocked_ = false;
            reason_.clear();
            return;
        default:
            if (phase_ != Phase::up) on_login_method(method);
    }
}

void AmqpDriver::on_login_method(const Method& method) {
    std::string& out = stream_.outbox();
    if (phase_ == Phase::start && method.id == AMQP_CONNECTION_START_METHOD) {
        phase_ = Phase::tune;
        if (inquiry_) inquiry_->met(method.properties);
        std::string problem = append_start_ok(frames_, out, method.mechanisms, settings_);
        if (!problem.empty()) fail(Remedy::fix_settings, std::move(problem));
    } else if (phase_ == Phase::tune && method.id == AMQP_CONNECTION_TUNE_METHOD) {
        phase_ = Phase::open_ok;
        limits_ = agree(method, client_.heartbeat_s);
        frames_.set_frame_max(limits_.frame_max);
        append_tune_ok_and_open(frames_, out, limits_, client_.vhost);
    } else if (phase_ == Phase::open_ok && method.id == AMQP_CONNECTION_OPEN_OK_METHOD) {
        phase_ = Phase::up;
        was_up_ = true;
        if (inquiry_) inquiry_->ask(frames_, out);
        const bool is_old = now_ > channel_limit_->learned + limit_is_old_after;
        const std::size_t most = is_old ? 0 : channel_limit_->most;
        channels_.limit(limits_.channel_max, most == 0 ? limits_.channel_max : most, channel_limit_->counted_for);
    } else {
        fail(Remedy::retry, "the broker left the order of the login");
    }
}

// Access refused and not allowed (a virtual host that is missing, a limit of connections) don't heal by themselves. A
// limit of channels ends the connection as well. Codes that we don't know may be a message's fault: delivery finds out.
void AmqpDriver::on_connection_close(const Method& close) {
    // The text stands in the inbox, which flush() may empty.
    std::string reason = words_of(close);
    const unsigned code = close.code;
    send(0, AMQP_CONNECTION_CLOSE_OK_METHOD, amqp_connection_close_ok_t{});
    stream_.flush();
    const bool limit = code == AMQP_NOT_ALLOWED || code == AMQP_RESOURCE_ERROR;
    if (limit && channels_.opening() > 0) return too_many_channels(std::move(reason));
    const bool settings = code == AMQP_ACCESS_REFUSED || code == AMQP_NOT_ALLOWED ||
                          (code == AMQP_INVALID_PATH && phase_ == Phase::open_ok);
    fail(settings ? Remedy::fix_settings : Remedy::retry, std::move(reason), code == AMQP_CONNECTION_FORCED);
}

// The next connection makes do with those that were open. RabbitMQ counts late: where a limit is known, it may be
// channels that are closed, of this connection or the last one, that it counts still.
void AmqpDriver::too_many_channels(std::string reason) {
    ChannelLimit& limit = *channel_limit_;
    std::size_t fit = channels_.fit(now_);
    if (channels_.are_few() && limit.most > fit) {
        const bool all_were_open = channels_.most_open() >= limit.most;
        if (all_were_open) limit.counted_for = std::min(2 * limit.counted_for, longest_counted);
        if (all_were_open || !limit.doubted) fit = limit.most;
        limit.doubted = !all_were_open;
    }
    if (fit == 0 && channels_.most_open() > 0) fit = 1;  // it was closed a while ago
    if (fit == 0) return fail(Remedy::fix_settings, std::move(reason));
    limit.most = fit;
    limit.learned = now_;
    const std::string these = fit == 1 ? "1 channel" : std::to_string(fit) + " channels";
    fail(Remedy::retry, std::move(reason) + "; routes take turns on the " + these + " that the broker lets us have",
         true);
}

// An acknowledgement or a return that fits nothing: to continue could take a message for delivered that is not. The
// channel is closed and what is under way on it goes out again, one at a time, so that nobody else pays for it.
void AmqpDriver::distrust(Lane& lane) {
    const std::string reason = "the broker spoke of a message that we did not send";
    close_channel(lane, AMQP_UNEXPECTED_FRAME, "of no message");
    lane.distrusted(reason, settlements_);
}

// Before the lane is told.
void AmqpDriver::close_channel(Lane& lane, std::uint16_t code, const char* text) {
    const amqp_channel_close_t close{.reply_code = code, .reply_text = to_bytes(text), .class_id = 0, .method_id = 0};
    send(lane.channel, AMQP_CHANNEL_CLOSE_METHOD, close);
    channels_.closing(lane);
}

void AmqpDriver::on_closing_channel(std::uint16_t channel, const Frame& frame) {
    if (frame.type != AMQP_FRAME_METHOD) return;
    const Method method = read_method(frame.payload);
    if (method.id == AMQP_CHANNEL_CLOSE_METHOD) {  // both closed it at once; its close-ok comes yet
        answer(channel, AMQP_CHANNEL_CLOSE_OK_METHOD, amqp_channel_close_ok_t{});
    } else if (method.id == AMQP_CHANNEL_CLOSE_OK_METHOD) {
        channels_.free(channel, now_);
    }
}

void AmqpDriver::on_lane_frame(Lane& lane, const Frame& frame) {
    bool fits = true;
    if (frame.type == AMQP_FRAME_METHOD) {
        on_lane_method(lane, read_method(frame.payload));
    } else if (frame.type == AMQP_FRAME_HEADER) {
        const ContentHeader header = read_content_header(frame.payload);
        fits = lane.return_header(header.message_id, header.body_size);
    } else if (frame.type == AMQP_FRAME_BODY) {
        fits = lane.return_body(frame.payload.size());
    }
    if (!fits) distrust(lane);
}

void AmqpDriver::on_lane_method(Lane& lane, const Method& method) {
    if (!method.is_heard) return;
    if (!method.is_whole) return distrust(lane);
    bool fits = true;
    switch (method.id) {
        case AMQP_CHANNEL_OPEN_OK_METHOD:
            channels_.opened(lane);
            break;
        case AMQP_BASIC_ACK_METHOD:
            fits = lane.confirm(method.tag, method.multiple, true, settlements_);
            break;
        case AMQP_BASIC_NACK_METHOD:
            fits = lane.confirm(method.tag, method.multiple, false, settlements_);
            break;
        case AMQP_BASIC_RETURN_METHOD:
            fits = lane.return_started(method.code, method.text, method.exchange, method.routing_key);
            break;
        case AMQP_CHANNEL_CLOSE_METHOD:
            send(lane.channel, AMQP_CHANNEL_CLOSE_OK_METHOD, amqp_channel_close_ok_t{});
            if (lane.opening) return too_many_channels(words(method.code, method.text));
            channels_.closed(lane, now_);
            lane.closed(method.code, method.text, settlements_);
            break;
        case AMQP_CHANNEL_CLOSE_OK_METHOD:
            return fail(Remedy::retry, "the broker closed a channel that we did not close");
        case AMQP_CHANNEL_FLOW_METHOD:
            lane.flow = method.active;
            answer(lane.channel, AMQP_CHANNEL_FLOW_OK_METHOD, amqp_channel_flow_ok_t{.active = method.active});
            break;
        default:
            break;
    }
    if (!fits) return distrust(lane);
    if (lane.aside && lane.channel != 0 && lane.used && lane.idle() && !channels_.are_few()) {
        close_channel(lane, AMQP_REPLY_SUCCESS, "done");
        lane.lost({}, settlements_);
    }
}

}  // namespace eventbus::broker::amqp
