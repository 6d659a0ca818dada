// What it is: the words of the WebSocket protocol (RFC 6455), client side: the upgrade, frames to and from bytes.
// Who calls it: drivers whose protocol can run inside of a WebSocket (mqtt).
// Never: does I/O, or lets a frame grow beyond what the caller allows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/broker_settings.hpp"

namespace eventbus::broker {

enum class Opcode : std::uint8_t { continuation = 0, text = 1, binary = 2, close = 8, ping = 9, pong = 10 };

struct WebSocketFrame {
    Opcode opcode = Opcode::binary;
    std::string_view payload;
    std::size_t size = 0;  // of the whole frame
};

enum class WebSocketRead : std::uint8_t { partial, whole, broken };

// Sixteen random bytes in base64: what the server has to answer to.
std::string websocket_key();

// The request that turns an HTTP connection into a WebSocket.
std::string websocket_request(const Host& host, std::string_view path, std::string_view subprotocol,
                              std::string_view key);

// Reads the server's answer. `size`: how many bytes it has. broken: `why` says what is wrong with it.
WebSocketRead read_websocket_answer(std::string_view bytes, std::string_view key, std::size_t& size, std::string& why);

// Appends one masked frame.
void append_websocket_frame(std::string& out, Opcode opcode, std::string_view payload);

// The first frame of `bytes`; servers do not mask theirs.
WebSocketRead read_websocket_frame(std::string_view bytes, std::size_t most, WebSocketFrame& frame);

}  // namespace eventbus::broker
