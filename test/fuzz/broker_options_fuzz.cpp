// What it is: options of brokers, as whoever calls create_broker writes them: the common ones, and those of MQTT.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: sees anything but BadInput thrown.
#include "../unit/module_support.hpp"
#include "broker/mqtt/mqtt_options.hpp"
#include "core/bad_input.hpp"
#include "input.hpp"

using namespace eventbus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    BrokerSettings settings;
    settings.url = parse_url(input.byte() % 2 == 0 ? "mqtts://u@h" : "mqtt://u@h", 1883);
    const fuzz::Exact text(input.rest());
    try {
        test::take_options(settings, std::string(text.view()));
        const BrokerOptions& options = settings.options;
        fuzz::check(options.window <= 1'000'000 && options.heartbeat_s <= 3600, "a number out of its range");
        fuzz::check(options.connect_timeout_ms >= 1 && options.connect_timeout_ms <= 300'000,
                    "a time out of its range");
        const auto& will = broker::mqtt::options_of(settings).will;
        fuzz::check(!will || will->topic.find('\0') == std::string::npos, "a will without a topic");
        IdleOptions idle;
        find_idle_options(settings, idle);
    } catch (const BadInput&) {
    }
    return 0;
}
