// What it is: the MQTT driver beside a broker that means harm, by TCP and by WebSocket.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: differs from what conversation.hpp asks of drivers.
#include <openssl/evp.h>
#include <openssl/sha.h>

#include "broker/mqtt/session.hpp"
#include "conversation.hpp"

using namespace eventbus;

namespace {

bool websocket = false;

std::string variable(std::size_t number) {
    std::string out;
    do {
        out += static_cast<char>((number & 0x7f) | (number > 0x7f ? 0x80 : 0));
        number >>= 7;
    } while (number > 0);
    return out;
}

// By its last four bits the frame of a WebSocket, where there is one.
std::string framed(unsigned opcode, std::string_view body) {
    if (!websocket) return std::string(body);
    std::string out(1, static_cast<char>(0x80 | opcode));
    if (body.size() < 126) {
        out += static_cast<char>(body.size());
    } else {
        out += static_cast<char>(126);
        out += static_cast<char>(body.size() >> 8);
        out += static_cast<char>(body.size() & 0xff);
    }
    return out.append(body.substr(0, 65535));
}

std::string packet(unsigned first, std::string_view body) {
    return framed(2, static_cast<char>(first) + variable(body.size()) + std::string(body));
}

std::string agreement() {
    const auto& said = fuzz::network.from_driver;
    const auto at = said.find("Sec-WebSocket-Key: ");
    if (at == std::string::npos) return {};
    const std::string salted = said.substr(at + 19, 24) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char digest[SHA_DIGEST_LENGTH];
    SHA1(reinterpret_cast<const unsigned char*>(salted.data()), salted.size(), digest);
    char base64[64];
    EVP_EncodeBlock(reinterpret_cast<unsigned char*>(base64), digest, sizeof digest);
    return std::string("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ") + base64 + "\r\n\r\n";
}

const fuzz::Protocol protocol{
    .login =
        [](unsigned flags) {
            const std::string agreed = websocket ? agreement() : std::string();
            return agreed + packet(0x20, (flags & 2) != 0 ? std::string("\0\0", 2) : std::string("\0\0\0", 3));
        },
    .frame =
        [](unsigned kind, std::string_view body) {
            if (websocket && kind % 4 == 3) return framed(kind >> 4, body);
            return packet(kind, body);
        },
    .complaint =
        [](std::string_view words) {
            words = words.substr(0, 2000);
            const std::string property = std::string(1, '\x1f') + static_cast<char>(words.size() >> 8) +
                                         static_cast<char>(words.size() & 0xff) + std::string(words);
            return packet(0xe0, '\x8b' + variable(property.size()) + property);
        },
    .address =
        [](fuzz::Input& input) {
            constexpr const char* options[] = {R"({"qos":0})",
                                               R"({"qos":1})",
                                               R"({"qos":2})",
                                               R"({"qos":0,"retain":true})",
                                               R"({"qos":1,"retain":true})",
                                               R"({"qos":2,"retain":true})"};
            const unsigned byte = input.byte();
            return test::addressing_of("topic", options[byte % 3 + (byte > 127 ? 3 : 0)]);
        },
    .kind = "topic",
    .options = R"({"qos":2,"retain":true})",
    .most_sent_back = 512 * 1024,
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const unsigned flags = input.byte();
    websocket = flags % 2 == 1;
    constexpr const char* options[] = {"{}", R"({"version":"3.1.1"})", R"({"client_id":"mine"})",
                                       R"({"version":"3.1.1","client_id":"mine"})"};
    const BrokerSettings settings =
        fuzz::settings_of(websocket ? "ws://app:x@one" : "mqtt://app:x@one", 1883, options[flags >> 1 & 3]);
    *broker::mqtt::session_of(settings) = {.client_id = "id", .exclusive = (flags & 4) == 0};
    // What the first connection leaves behind, the second one finds.
    const unsigned connections = (flags & 8) != 0 ? 2 : 1;
    for (unsigned i = 0; i < connections; ++i) const fuzz::Conversation conversation(settings, protocol, input);
    return 0;
}
