// What it is: the AMQP driver beside a broker that means harm.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: differs from what conversation.hpp asks of drivers.
#include "broker/amqp/channels.hpp"
#include "conversation.hpp"

using namespace eventbus;

namespace {

std::string number(std::uint64_t value, int bytes) {
    std::string out;
    for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(value >> 8 * i);
    return out;
}

std::string frame(unsigned type, unsigned channel, std::string_view payload) {
    return number(type, 1) + number(channel, 2) + number(payload.size(), 4) + std::string(payload) + '\xce';
}

std::string text(std::string_view words) {
    words = words.substr(0, 255);
    return number(words.size(), 1) + std::string(words);
}

const fuzz::Protocol protocol{
    .login =
        [](unsigned flags) {
            const std::string start = number(0x000a000a, 4) + std::string("\0\x09", 2) + number(0, 4) + number(5, 4) +
                                      "PLAIN" + number(5, 4) + "en_US";
            const unsigned channels = (flags & 2) != 0 ? 1 : 2047;
            const std::string tune = number(0x000a001e, 4) + number(channels, 2) + number(4096, 4) + number(60, 2);
            const std::string open_ok = number(0x000a0029, 4) + text("");
            return frame(1, 0, start) + frame(1, 0, tune) + frame(1, 0, open_ok);
        },
    // Of the methods that there are, one in two.
    .frame = [](unsigned kind, std::string_view body) -> std::string {
        constexpr std::uint32_t methods[] = {0x0014000b, 0x003c0050, 0x003c0078, 0x003c0032,
                                             0x00140028, 0x00140029, 0x00140014, 0x000a0032};
        const unsigned channel = kind >> 3 & 7;
        switch (kind >> 6) {
            case 0:
            case 1:
                return frame(1, channel, number(methods[kind & 7], 4) + std::string(body));
            case 2:
                return frame(2, channel, number(60, 2) + number(0, 2) + std::string(body));
            default:
                return frame(kind & 7, channel, body);
        }
    },
    .complaint =
        [](std::string_view words) {
            return frame(1, 0, number(0x000a0032, 4) + number(320, 2) + text(words) + number(0, 4));
        },
    .address =
        [](fuzz::Input& input) {
            const unsigned byte = input.byte();
            return test::addressing_of(byte % 2 == 0 ? "queue" : "exchange", "{}", byte > 127);
        },
    .kind = "queue",
    .options = R"({"persistent":false})",
    .most_sent_back = 512 * 1024,
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const BrokerSettings settings = fuzz::settings_of("amqp://app:x@one", 5672);
    *broker::amqp::channel_limit_of(settings) = {};
    const fuzz::Conversation conversation(settings, protocol, fuzz::Input(data, size));
    return 0;
}
