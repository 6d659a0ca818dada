// What it is: packets of MQTT, as brokers send them.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: reads beyond what has come.
#include "broker/mqtt/packets.hpp"

#include "broker/mqtt/reasons.hpp"
#include "input.hpp"

using namespace eventbus;
using namespace eventbus::broker::mqtt;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const fuzz::Exact bytes(fuzz::view(data, size));
    static_cast<void>(read_connack(bytes.view()));
    for (auto rest = bytes.view(); !rest.empty();) {
        Packet packet;
        if (read_packet(rest, packet) != Reading::whole) break;
        fuzz::check(packet.size >= 2 && packet.size <= rest.size(), "a packet's size");
        if (const auto connack = read_connack(packet.body)) {
            fuzz::check(connack->receive_maximum > 0, "a window of nothing");
            static_cast<void>(words_of(connack_code(connack->code), connack->reason));
        }
        if (const auto answer = read_answer(packet)) {
            const std::string words = words_of(answer->code, answer->reason);
            fuzz::check(words.size() < 500, "words are short", words);
        }
        rest.remove_prefix(packet.size);
    }
    return 0;
}
