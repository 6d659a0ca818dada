// What it is: options of brokers, as whoever calls create_broker writes them.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: sees anything but BadInput thrown.
#include <array>

#include "core/bad_input.hpp"
#include "core/broker_settings.hpp"
#include "input.hpp"

using namespace eventbus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static constexpr std::array<std::string_view, 5> all = {"confirm_timeout", "version", "client_id", "session_expiry",
                                                            "will"};
    fuzz::Input input(data, size);
    const std::size_t count = input.byte() % (all.size() + 1);
    const fuzz::Exact text(input.rest());
    BrokerSettings settings;
    settings.url.scheme = count % 2 == 0 ? "mqtts" : "mqtt";
    try {
        settings.options = read_broker_options(text.view(), "mqtt", std::span(all).first(count));
        const BrokerOptions& options = settings.options;
        fuzz::check(options.window <= 1'000'000 && options.heartbeat_s <= 3600, "a number out of its range");
        fuzz::check(options.connect_timeout_ms >= 1 && options.connect_timeout_ms <= 300'000,
                    "a time out of its range");
        fuzz::check(!options.will || options.will->topic.find('\0') == std::string::npos, "a will without a topic");
        IdleOptions idle;
        find_idle_options(settings, idle);
        check_tls_options(settings, "mqtts");
    } catch (const BadInput&) {
    }
    return 0;
}
