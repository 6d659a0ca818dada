// What it is: the connection's bytes; see wire.hpp.
// Who calls it: the MQTT driver.
// Never: blocks, or knows MQTT.
#include "broker/mqtt/wire.hpp"

#include <utility>

#include "broker/stream/other_protocols.hpp"

namespace eventbus::broker::mqtt {

namespace {

constexpr const char* subprotocol = "mqtt";
constexpr std::size_t longest_frame = 1024 * 1024;

bool is_websocket(std::string_view scheme) {
    return scheme == "ws" || scheme == "wss";
}

bool is_tls(std::string_view scheme) {
    return scheme == "mqtts" || scheme == "wss";
}

// What a path must not have unescaped.
std::string escaped(std::string_view path) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    std::string out;
    for (const char c : path) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte > 0x20 && byte < 0x7f && std::string_view("\"<>\\^`{|}%#").find(c) == std::string_view::npos) {
            out += c;
        } else {
            out += '%';
            out += digits[byte >> 4];
            out += digits[byte & 15];
        }
    }
    return out;
}

}  // namespace

Wire::Wire(const Host& host, const BrokerSettings& settings)
    : host_(host),
      scheme_(settings.url.scheme),
      path_("/" + escaped(settings.url.has_path ? settings.url.path : "mqtt")),
      websocket_(is_websocket(settings.url.scheme)),
      stream_(host, tls_settings(settings, is_tls(settings.url.scheme))) {}

std::string Wire::missing() const {
    if (stream_.state() != Stream::State::open) return stream_.missing();
    return host_.shown() + " took the connection, but does not answer the request for a WebSocket";
}

bool Wire::look(Look& look) const {
    if (!stream_.look(look)) return false;
    if (!websocket_) return true;
    look.step = "websocket";
    if (agreed_) look.found("websocket", "path " + path_);
    return agreed_;
}

Stream::State Wire::state() const {
    if (!error_.empty()) return Stream::State::closed;
    const auto state = stream_.state();
    return state == Stream::State::open && websocket_ && !agreed_ ? Stream::State::connecting : state;
}

Stream::State Wire::drive(Ready ready) {
    stream_.drive(ready);
    if (!websocket_ || !error_.empty()) return state();
    if (stream_.state() == Stream::State::open && !asked_) ask_for_websocket();
    take_websocket();
    if (stream_.left() && asked_ && !agreed_ && error_.empty()) explain_end();
    return state();
}

void Wire::explain_end() {
    error_ = "connection lost before the server answered the request for a WebSocket: " + stream_.error() +
             "; if it speaks MQTT without WebSockets on this port, use " + (is_tls(scheme_) ? "mqtts" : "mqtt") +
             "://" + if_it_wants_tls(scheme_);
}

void Wire::ask_for_websocket() {
    asked_ = true;
    key_ = websocket_key();
    stream_.write(websocket_request(host_, path_, subprotocol, key_));
    stream_.flush();
}

void Wire::take_websocket() {
    if (!agreed_ && asked_) {
        std::size_t size = 0;
        std::string why;
        const auto answer = read_websocket_answer(stream_.inbox(), key_, size, why);
        if (answer == WebSocketRead::partial) return;
        if (answer == WebSocketRead::broken) {
            refused_ = true;
            const std::string another = other_protocol(stream_.inbox(), scheme_);
            return close(another.empty() ? why : another);
        }
        stream_.consume(size);
        agreed_ = true;
    }
    while (agreed_ && error_.empty()) {
        WebSocketFrame frame;
        const auto read = read_websocket_frame(stream_.inbox(), longest_frame, frame);
        if (read == WebSocketRead::partial) return;
        if (read == WebSocketRead::broken) return close("the server sent a malformed WebSocket frame");
        if (!take_frame(frame)) return;
        stream_.consume(frame.size);
    }
}

bool Wire::take_frame(const WebSocketFrame& frame) {
    switch (frame.opcode) {
        case Opcode::binary:
        case Opcode::continuation:
            plain_in_ += frame.payload;
            return true;
        case Opcode::ping:
            append_websocket_frame(stream_.outbox(), Opcode::pong, frame.payload);
            if (stream_.may_answer(frame.size)) return true;
            close(Stream::reads_no_answers);
            return false;
        case Opcode::pong:
            return true;
        case Opcode::close:
            close("the server closed the WebSocket");
            return false;
        default:
            close("the server sent an unexpected WebSocket frame");
            return false;
    }
}

void Wire::flush() {
    if (!plain_out_.empty()) {
        append_websocket_frame(stream_.outbox(), Opcode::binary, plain_out_);
        plain_out_.clear();
    }
    stream_.flush();
    if (websocket_) take_websocket();  // where the server has gone, its last words were read just now
}

void Wire::consume(std::size_t bytes) {
    if (websocket_)
        plain_in_.erase(0, bytes);
    else
        stream_.consume(bytes);
}

void Wire::close(std::string reason) {
    if (error_.empty()) error_ = reason;
    stream_.close(std::move(reason));
}

}  // namespace eventbus::broker::mqtt
