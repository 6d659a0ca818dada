// What it is: AMQP 0-9-1 frames to and from bytes; rabbitmq-c encodes what is inside of ours.
// Who calls it: the AMQP driver, its login and its messages.
// Never: does I/O. rabbitmq-c's connection object is not used: it blocks, and it aborts the process on misuse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "broker/amqp/codec.hpp"

namespace eventbus::broker::amqp {

inline constexpr std::string_view protocol_header{"AMQP\0\0\x09\x01", 8};
inline constexpr std::size_t frame_overhead = 8;      // type, channel, size; the end mark
inline constexpr std::size_t least_frame_max = 4096;  // the protocol's
inline constexpr std::size_t most_frame_max = 131072;
inline constexpr std::size_t short_string_max = 255;

inline amqp_bytes_t to_bytes(std::string_view text) {
    return {text.size(), const_cast<char*>(text.data())};
}
inline std::string_view to_view(amqp_bytes_t bytes) {
    return {static_cast<const char*>(bytes.bytes), bytes.len};
}

// Text from the network, fit for a log line: control characters become question marks.
std::string printable(std::string_view text);
std::string words(unsigned code, std::string_view text);  // of a refusal

struct Frame {
    std::uint8_t type = 0;
    std::uint16_t channel = 0;
    std::string_view payload;
    std::size_t size = 0;  // of the whole frame
};

enum class Framing : std::uint8_t { whole, partial, broken };

// Reads the first frame of `bytes`.
Framing read_frame(std::string_view bytes, std::size_t frame_max, Frame& frame);

// Appends frames to a buffer. All return false, with nothing appended, where a frame would exceed frame_max.
class FrameWriter {
 public:
    FrameWriter() : scratch_(most_frame_max) {}
    void set_frame_max(std::size_t frame_max) { frame_max_ = frame_max; }
    std::size_t frame_max() const { return frame_max_; }

    bool method(std::string& out, std::uint16_t channel, amqp_method_number_t id, const void* fields);
    bool header(std::string& out, std::uint16_t channel, const amqp_basic_properties_t& properties,
                std::uint64_t body_size);
    void body(std::string& out, std::uint16_t channel, std::string_view body);  // split into frames
    void heartbeat(std::string& out);

 private:
    bool scratch_frame(std::string& out, std::uint8_t type, std::uint16_t channel, std::size_t prefix, int encoded);
    amqp_bytes_t scratch_after(std::size_t prefix);

    std::size_t frame_max_ = most_frame_max;
    std::vector<char> scratch_;
};

}  // namespace eventbus::broker::amqp
