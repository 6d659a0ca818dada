// What it is: AMQP 0-9-1 frames to and from bytes; see frame.hpp.
// Who calls it: the AMQP driver, its login and its messages.
// Never: does I/O or trusts a length that it has not checked.
#include "broker/amqp/frame.hpp"

#include <algorithm>

namespace eventbus::broker::amqp {

namespace {

constexpr char frame_end = '\xCE';
constexpr std::size_t frame_head = 7;
constexpr std::size_t method_prefix = 4;   // class and method
constexpr std::size_t header_prefix = 12;  // class, weight, body size

std::uint64_t big_endian(std::string_view bytes) {
    std::uint64_t value = 0;
    for (const char byte : bytes) value = value << 8 | static_cast<unsigned char>(byte);
    return value;
}

void put(char* at, std::uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; --i, value >>= 8) at[i] = static_cast<char>(value & 0xFF);
}

void append_frame(std::string& out, std::uint8_t type, std::uint16_t channel, std::string_view payload) {
    char head[frame_head];
    put(head, type, 1);
    put(head + 1, channel, 2);
    put(head + 3, payload.size(), 4);
    out.append(head, frame_head).append(payload).push_back(frame_end);
}

}  // namespace

std::string printable(std::string_view text) {
    std::string shown(text);
    std::replace_if(
        shown.begin(), shown.end(), [](unsigned char byte) { return byte < 0x20 || byte == 0x7F; }, '?');
    return shown;
}

std::string words(unsigned code, std::string_view text) {
    return std::to_string(code) + " " + printable(text);
}

Framing read_frame(std::string_view bytes, std::size_t frame_max, Frame& frame) {
    if (bytes.size() < frame_head) return Framing::partial;
    frame.type = static_cast<std::uint8_t>(bytes[0]);
    frame.channel = static_cast<std::uint16_t>(big_endian(bytes.substr(1, 2)));
    const auto length = static_cast<std::size_t>(big_endian(bytes.substr(3, 4)));
    if (length > frame_max - frame_overhead) return Framing::broken;
    if (bytes.size() < length + frame_overhead) return Framing::partial;
    if (bytes[frame_head + length] != frame_end) return Framing::broken;
    frame.payload = bytes.substr(frame_head, length);
    frame.size = length + frame_overhead;
    return Framing::whole;
}

amqp_bytes_t FrameWriter::scratch_after(std::size_t prefix) {
    return {frame_max_ - frame_overhead - prefix, scratch_.data() + prefix};
}

bool FrameWriter::scratch_frame(std::string& out, std::uint8_t type, std::uint16_t channel, std::size_t prefix,
                                int encoded) {
    if (encoded < 0) return false;
    append_frame(out, type, channel, {scratch_.data(), prefix + static_cast<std::size_t>(encoded)});
    return true;
}

bool FrameWriter::method(std::string& out, std::uint16_t channel, amqp_method_number_t id, const void* fields) {
    put(scratch_.data(), id, 4);
    const int encoded = amqp_encode_method(id, const_cast<void*>(fields), scratch_after(method_prefix));
    return scratch_frame(out, AMQP_FRAME_METHOD, channel, method_prefix, encoded);
}

bool FrameWriter::header(std::string& out, std::uint16_t channel, const amqp_basic_properties_t& properties,
                         std::uint64_t body_size) {
    put(scratch_.data(), AMQP_BASIC_CLASS, 2);
    put(scratch_.data() + 2, 0, 2);
    put(scratch_.data() + 4, body_size, 8);
    const int encoded = amqp_encode_properties(AMQP_BASIC_CLASS, const_cast<amqp_basic_properties_t*>(&properties),
                                               scratch_after(header_prefix));
    return scratch_frame(out, AMQP_FRAME_HEADER, channel, header_prefix, encoded);
}

void FrameWriter::body(std::string& out, std::uint16_t channel, std::string_view body) {
    const std::size_t most = frame_max_ - frame_overhead;
    for (; !body.empty(); body.remove_prefix(std::min(most, body.size())))
        append_frame(out, AMQP_FRAME_BODY, channel, body.substr(0, most));
}

void FrameWriter::heartbeat(std::string& out) {
    append_frame(out, AMQP_FRAME_HEARTBEAT, 0, {});
}

}  // namespace eventbus::broker::amqp
