// What it is: an event of any content as a message of MQTT.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: appends a part of a message that it refuses.
#include "broker/mqtt/mqtt_message.hpp"

#include "any_message.hpp"

using namespace eventbus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const unsigned flags = input.byte();
    const auto route = std::make_shared<broker::mqtt::MqttRoute>();
    route->qos = static_cast<int>(flags % 3);
    route->retain = flags > 127;
    const broker::Addressing addressing{.kind = "topic", .own = route};
    const fuzz::AnyMessage message(input, flags, addressing);
    std::string out = "before";
    broker::mqtt::Limits limits;
    limits.maximum_packet = (flags & 16) != 0 ? 1000 : 0;
    if ((flags & 32) != 0) limits.version = broker::mqtt::MqttVersion::v3_1_1;
    broker::mqtt::MessageWriter messages("postgresql://fuzz/db");
    Settlement refusal;
    const bool written = messages.write(out, message.outgoing, limits, 7, (flags & 64) != 0, refusal);
    fuzz::check(written == (out.size() > 6), "half a message", refusal.reason);
    fuzz::check(written || !refusal.reason.empty(), "a refusal without a reason");
    return 0;
}
