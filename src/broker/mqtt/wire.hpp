// What it is: the connection's bytes: a stream, and a WebSocket inside of it where the scheme is ws or wss.
// Who calls it: the MQTT driver.
// Never: blocks, or knows MQTT.
#pragma once

#include <string>
#include <string_view>

#include "broker/stream/stream.hpp"
#include "broker/stream/websocket.hpp"

namespace eventbus::broker::mqtt {

class Wire {
 public:
    Wire(const Host& host, const BrokerSettings& settings);

    // Open once bytes can be exchanged: with a WebSocket, after the server has agreed to it.
    Stream::State drive(Ready ready);
    Stream::State state() const;
    Interest interest() const { return stream_.interest(); }
    const std::string& error() const { return error_.empty() ? stream_.error() : error_; }
    bool is_settings_error() const { return stream_.is_settings_error() || refused_; }
    bool left() const { return stream_.left(); }
    std::string missing() const;  // as a stream's
    bool look(Look& look) const;  // the same, with "websocket"

    std::string& outbox() { return websocket_ ? plain_out_ : stream_.outbox(); }
    void flush();
    std::size_t unsent() const { return stream_.unsent() + plain_out_.size(); }

    bool may_answer(std::size_t bytes) { return stream_.may_answer(bytes); }

    std::string_view inbox() const { return websocket_ ? std::string_view(plain_in_) : stream_.inbox(); }
    void consume(std::size_t bytes);
    void close(std::string reason);

 private:
    void ask_for_websocket();
    void explain_end();
    void take_websocket();
    bool take_frame(const WebSocketFrame& frame);

    Host host_;
    std::string scheme_;
    std::string path_;
    bool websocket_;
    bool asked_ = false;
    bool agreed_ = false;
    bool refused_ = false;
    std::string key_;
    std::string error_;
    std::string plain_in_;
    std::string plain_out_;
    Stream stream_;
};

}  // namespace eventbus::broker::mqtt
