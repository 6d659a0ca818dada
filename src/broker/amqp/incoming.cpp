// What it is: the AMQP 0-9-1 driver: what the broker says; see driver.hpp.
// Who calls it: drive().
// Never: trusts a frame that does not fit the moment.
#include "broker/amqp/driver.hpp"

namespace eventbus::broker::amqp {

namespace {

std::string words(unsigned code, amqp_bytes_t text) {
    return std::to_string(code) + " " + printable(to_view(text));
}

}  // namespace

void AmqpDriver::receive() {
    if (phase_ == Phase::start) {
        if (std::string problem = not_amqp(stream_.inbox()); !problem.empty()) return fail(Remedy::retry, problem);
        if (stream_.inbox().starts_with("A")) return;  // the rest of another version's header is still to come
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
    reader_.release();
    if (phase_ != Phase::down) stream_.consume(consumed);
}

void AmqpDriver::on_frame(const Frame& frame) {
    if (frame.type == AMQP_FRAME_HEARTBEAT) return;
    if (frame.channel == 0) {
        if (frame.type == AMQP_FRAME_METHOD) on_connection_method(reader_.method(frame.payload));
    } else if (frame.channel < channels_.size()) {
        if (Lane* lane = channels_[frame.channel])
            on_lane_frame(*lane, frame);
        else
            on_closing_channel(frame.channel, frame);
    }
}

void AmqpDriver::on_connection_method(const FrameReader::Method& method) {
    if (!method.fields) return fail(Remedy::retry, "the broker sent a malformed method");
    switch (method.id) {
        case AMQP_CONNECTION_CLOSE_METHOD:
            return on_connection_close(method.as<amqp_connection_close_t>());
        case AMQP_CONNECTION_BLOCKED_METHOD:
            blocked_ = true;
            reason_ = printable(to_view(method.as<amqp_connection_blocked_t>().reason));
            return;
        case AMQP_CONNECTION_UNBLOCKED_METHOD:
            blocked_ = false;
            reason_.clear();
            return;
        default:
            if (phase_ != Phase::up) on_login_method(method);
    }
}

void AmqpDriver::on_login_method(const FrameReader::Method& method) {
    std::string& out = stream_.outbox();
    if (phase_ == Phase::start && method.id == AMQP_CONNECTION_START_METHOD) {
        phase_ = Phase::tune;
        std::string problem = append_start_ok(frames_, out, method.as<amqp_connection_start_t>(), settings_);
        if (!problem.empty()) fail(Remedy::fix_settings, std::move(problem));
    } else if (phase_ == Phase::tune && method.id == AMQP_CONNECTION_TUNE_METHOD) {
        phase_ = Phase::open_ok;
        limits_ = agree(method.as<amqp_connection_tune_t>(), client_.heartbeat_s);
        frames_.set_frame_max(limits_.frame_max);
        append_tune_ok_and_open(frames_, out, limits_, client_.vhost);
    } else if (phase_ == Phase::open_ok && method.id == AMQP_CONNECTION_OPEN_OK_METHOD) {
        phase_ = Phase::up;
    } else {
        fail(Remedy::retry, "the broker left the order of the login");
    }
}

// Access refused and not allowed (a virtual host that is missing, a limit of connections) don't heal by themselves.
void AmqpDriver::on_connection_close(const amqp_connection_close_t& close) {
    // The text stands in the inbox, which flush() may empty.
    std::string reason = words(close.reply_code, close.reply_text);
    send(0, AMQP_CONNECTION_CLOSE_OK_METHOD, amqp_connection_close_ok_t{});
    stream_.flush();
    const bool settings = close.reply_code == AMQP_ACCESS_REFUSED || close.reply_code == AMQP_NOT_ALLOWED;
    goodbye_ = close.reply_code == AMQP_CONNECTION_FORCED;
    fail(settings ? Remedy::fix_settings : Remedy::retry, std::move(reason));
}

void AmqpDriver::on_closing_channel(std::uint16_t channel, const Frame& frame) {
    if (frame.type != AMQP_FRAME_METHOD) return;
    const FrameReader::Method method = reader_.method(frame.payload);
    if (method.id == AMQP_CHANNEL_CLOSE_METHOD) {  // both closed it at once; its close-ok comes yet
        send(channel, AMQP_CHANNEL_CLOSE_OK_METHOD, amqp_channel_close_ok_t{});
    } else if (method.id == AMQP_CHANNEL_CLOSE_OK_METHOD) {
        free_channels_.push_back(channel);
        closing_channel_ = false;
    }
}

void AmqpDriver::on_lane_frame(Lane& lane, const Frame& frame) {
    bool fits = true;
    if (frame.type == AMQP_FRAME_METHOD) {
        on_lane_method(lane, reader_.method(frame.payload));
    } else if (frame.type == AMQP_FRAME_HEADER) {
        const FrameReader::Header header = reader_.header(frame.payload);
        fits = header.properties && lane.return_header(to_view(header.properties->message_id), header.body_size);
    } else if (frame.type == AMQP_FRAME_BODY) {
        fits = lane.return_body(frame.payload.size());
    }
    if (!fits) fail(Remedy::retry, "the broker returned a message that we did not send");
}

void AmqpDriver::on_lane_method(Lane& lane, const FrameReader::Method& method) {
    if (!method.fields) return fail(Remedy::retry, "the broker sent a malformed method");
    bool fits = true;
    switch (method.id) {
        case AMQP_BASIC_ACK_METHOD: {
            const auto& ack = method.as<amqp_basic_ack_t>();
            fits = lane.confirm(ack.delivery_tag, ack.multiple, true, settlements_);
            break;
        }
        case AMQP_BASIC_NACK_METHOD: {
            const auto& nack = method.as<amqp_basic_nack_t>();
            fits = lane.confirm(nack.delivery_tag, nack.multiple, false, settlements_);
            break;
        }
        case AMQP_BASIC_RETURN_METHOD: {
            const auto& returned = method.as<amqp_basic_return_t>();
            fits = lane.return_started(words(returned.reply_code, returned.reply_text) + ": exchange '" +
                                       printable(to_view(returned.exchange)) + "', routing key '" +
                                       printable(to_view(returned.routing_key)) + "'");
            break;
        }
        case AMQP_CHANNEL_CLOSE_METHOD: {
            const auto& close = method.as<amqp_channel_close_t>();
            send(lane.channel, AMQP_CHANNEL_CLOSE_OK_METHOD, amqp_channel_close_ok_t{});
            channels_[lane.channel] = nullptr;
            free_channels_.push_back(lane.channel);
            lane.closed(close.reply_code, to_view(close.reply_text), settlements_);
            break;
        }
        case AMQP_CHANNEL_FLOW_METHOD: {
            const auto& flow = method.as<amqp_channel_flow_t>();
            lane.flow = flow.active;
            send(lane.channel, AMQP_CHANNEL_FLOW_OK_METHOD, amqp_channel_flow_ok_t{.active = flow.active});
            break;
        }
        default:
            break;
    }
    if (!fits) fail(Remedy::retry, "the broker confirmed a message that we did not send");
}

}  // namespace eventbus::broker::amqp
