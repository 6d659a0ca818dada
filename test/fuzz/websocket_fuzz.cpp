// What it is: frames of the WebSocket protocol, and the server's answer to the handshake.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: reads beyond what has come.
#include "broker/stream/websocket.hpp"

#include "input.hpp"

using namespace eventbus;
using namespace eventbus::broker;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    constexpr std::string_view key = "dGhlIHNhbXBsZSBub25jZQ==";  // RFC 6455, 1.3
    constexpr std::size_t most = 4096;
    const fuzz::Exact bytes(fuzz::view(data, size));
    std::size_t length = 0;
    std::string why;
    const auto answer = read_websocket_answer(bytes.view(), key, length, why);
    fuzz::check(answer != WebSocketRead::whole || (length > 0 && length <= size), "an answer's size");
    fuzz::check(answer != WebSocketRead::partial || size < 16 * 1024, "an answer without end");
    fuzz::check((answer == WebSocketRead::broken) == !why.empty(), "a refusal has words");
    for (auto rest = bytes.view(); !rest.empty();) {
        WebSocketFrame frame;
        if (read_websocket_frame(rest, most, frame) != WebSocketRead::whole) break;
        fuzz::check(frame.size >= 2 && frame.size <= rest.size() && frame.payload.size() <= most, "a frame's size");
        fuzz::check(frame.opcode < Opcode::close || frame.payload.size() <= 125, "a control frame is short");
        rest.remove_prefix(frame.size);
    }
    std::string written;
    append_websocket_frame(written, Opcode::binary, bytes.view());
    fuzz::check(written.size() >= size + 6, "a frame that was written");
    return 0;
}
