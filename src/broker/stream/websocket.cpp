// What it is: the words of the WebSocket protocol; see websocket.hpp.
// Who calls it: drivers whose protocol can run inside of a WebSocket.
// Never: does I/O, or lets a frame grow beyond what the caller allows.
#include "broker/stream/websocket.hpp"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <span>

namespace eventbus::broker {

namespace {

constexpr std::string_view accept_salt = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
constexpr std::size_t longest_answer = 16 * 1024;
constexpr std::size_t longest_control = 125;
constexpr unsigned final_frame = 0x80;
constexpr unsigned masked = 0x80;

// What must not be guessed by a proxy on the way; no secret.
void fill_randomly(std::span<unsigned char> bytes) {
    for (std::size_t got = 0; got < bytes.size();) {
        const ssize_t more = getrandom(bytes.data() + got, bytes.size() - got, 0);
        if (more > 0) got += static_cast<std::size_t>(more);
    }
}

std::string base64(std::span<const unsigned char> bytes) {
    std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
    const int length =
        EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes.data(), static_cast<int>(bytes.size()));
    out.resize(static_cast<std::size_t>(length));
    return out;
}

std::string expected_accept(std::string_view key) {
    const std::string salted = std::string(key) + std::string(accept_salt);
    std::array<unsigned char, SHA_DIGEST_LENGTH> digest;
    SHA1(reinterpret_cast<const unsigned char*>(salted.data()), salted.size(), digest.data());
    return base64(digest);
}

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool same_but_for_case(std::string_view a, std::string_view b) {
    return a.size() == b.size() &&
           std::equal(a.begin(), a.end(), b.begin(), [](char left, char right) { return lower(left) == lower(right); });
}

// The value of a header field; empty when it is not there.
std::string_view field(std::string_view head, std::string_view name) {
    while (!head.empty()) {
        const auto end = std::min(head.find("\r\n"), head.size());
        const auto line = head.substr(0, end);
        head.remove_prefix(std::min(end + 2, head.size()));
        const auto colon = line.find(':');
        if (colon == std::string_view::npos || !same_but_for_case(line.substr(0, colon), name)) continue;
        auto value = line.substr(colon + 1);
        while (value.starts_with(' ') || value.starts_with('\t')) value.remove_prefix(1);
        while (value.ends_with(' ') || value.ends_with('\t')) value.remove_suffix(1);
        return value;
    }
    return {};
}

// What nginx, Apache and Go's library say to whoever speaks without TLS; and a path that nobody serves.
std::string advice(std::string_view line, std::string_view body) {
    if (body.find("HTTPS") != std::string_view::npos || body.find("SSL-enabled") != std::string_view::npos)
        return "; it wants TLS on this port: use wss://";
    if (line.substr(0, line.find("\r\n")).find(" 404") == std::string_view::npos) return {};
    return "; the path in the broker's URL must be that of its WebSocket (/mqtt where none is written)";
}

void append_number(std::string& out, std::uint64_t number, int bytes) {
    for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) out.push_back(static_cast<char>(number >> shift));
}

}  // namespace

std::string websocket_key() {
    std::array<unsigned char, 16> bytes;
    fill_randomly(bytes);
    return base64(bytes);
}

std::string websocket_request(const Host& host, std::string_view path, std::string_view subprotocol,
                              std::string_view key) {
    std::string request = "GET ";
    request += path;
    request += " HTTP/1.1\r\nHost: " + host.shown() + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    request += "Sec-WebSocket-Key: ";
    request += key;
    request += "\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ";
    request += subprotocol;
    request += "\r\n\r\n";
    return request;
}

WebSocketRead read_websocket_answer(std::string_view bytes, std::string_view key, std::size_t& size, std::string& why) {
    const auto end = bytes.find("\r\n\r\n");
    if (end == std::string_view::npos) {
        constexpr std::string_view begin = "HTTP/1.";
        const auto seen = bytes.substr(0, begin.size());
        if (begin.starts_with(seen) && bytes.size() < longest_answer) return WebSocketRead::partial;
        why = "the server does not speak HTTP";
        return WebSocketRead::broken;
    }
    size = end + 4;
    const auto head = bytes.substr(0, end);
    const auto line = head.substr(0, head.find("\r\n"));
    if (!line.starts_with("HTTP/1.1 101")) {
        why = "the server refused the WebSocket: ";
        for (const char c : line.substr(0, 100)) why += c >= 0x20 && c < 0x7f ? c : '?';
        why += advice(line, bytes.substr(size));
        return WebSocketRead::broken;
    }
    if (field(head, "Sec-WebSocket-Accept") != expected_accept(key)) {
        why = "the server's answer to the WebSocket's key is wrong";
        return WebSocketRead::broken;
    }
    return WebSocketRead::whole;
}

void append_websocket_frame(std::string& out, Opcode opcode, std::string_view payload) {
    out.push_back(static_cast<char>(final_frame | static_cast<unsigned>(opcode)));
    if (payload.size() < 126) {
        append_number(out, masked | payload.size(), 1);
    } else if (payload.size() <= 0xffff) {
        append_number(out, masked | 126, 1);
        append_number(out, payload.size(), 2);
    } else {
        append_number(out, masked | 127, 1);
        append_number(out, payload.size(), 8);
    }
    std::array<unsigned char, 4> mask;
    fill_randomly(mask);
    for (const unsigned char byte : mask) out.push_back(static_cast<char>(byte));
    const std::size_t begin = out.size();
    out.append(payload);
    for (std::size_t i = 0; i < payload.size(); ++i) out[begin + i] = static_cast<char>(out[begin + i] ^ mask[i & 3]);
}

WebSocketRead read_websocket_frame(std::string_view bytes, std::size_t most, WebSocketFrame& frame) {
    if (bytes.size() < 2) return WebSocketRead::partial;
    const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(bytes[at]); };
    constexpr unsigned reserved = 0x70;
    if ((byte(0) & reserved) != 0 || (byte(1) & masked) != 0) return WebSocketRead::broken;
    frame.opcode = static_cast<Opcode>(byte(0) & 0x0f);
    std::uint64_t length = byte(1) & 0x7f;
    // RFC 6455, 5.5: control frames are whole and short.
    const bool is_control = frame.opcode >= Opcode::close;
    if (is_control && (length > longest_control || (byte(0) & final_frame) == 0)) return WebSocketRead::broken;
    std::size_t head = 2;
    if (length >= 126) {
        head += length == 126 ? 2 : 8;
        if (bytes.size() < head) return WebSocketRead::partial;
        length = 0;
        for (std::size_t at = 2; at < head; ++at) length = length << 8 | byte(at);
    }
    if (length > most) return WebSocketRead::broken;
    frame.size = head + static_cast<std::size_t>(length);
    if (bytes.size() < frame.size) return WebSocketRead::partial;
    frame.payload = bytes.substr(head, static_cast<std::size_t>(length));
    return WebSocketRead::whole;
}

}  // namespace eventbus::broker
