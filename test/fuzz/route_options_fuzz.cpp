// What it is: options, destinations and patterns of routes, as whoever calls create_route writes them.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: sees anything but BadInput thrown.
#include <array>

#include "broker/mqtt/mqtt_options.hpp"
#include "core/bad_input.hpp"
#include "input.hpp"
#include "router/route.hpp"

extern "C" const eventbus::broker::Module* eventbus_driver_module();

using namespace eventbus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static constexpr std::array<std::string_view, 3> kinds = {"exchange", "topic", "stream"};
    static constexpr std::array<std::string_view, 5> all = {"routing_key", "qos", "retain", "maxlen", "persistent"};
    fuzz::Input input(data, size);
    broker::Module module = *eventbus_driver_module();
    module.protocol = "fuzz";
    module.kinds = kinds;
    module.route_options = std::span(all).first(input.byte() % (all.size() + 1));
    module.longest_name = input.byte();
    module.flaw_in_name = [](std::string_view part) {
        return std::string(part.find_first_of("+#") == std::string_view::npos ? "" : "has a pattern");
    };
    const fuzz::Exact destination(input.piece());
    const fuzz::Exact patterns(input.piece());
    const fuzz::Exact options(input.rest());
    try {
        const auto read = router::read_route_options({router::known_route_options(module), options.view()});
        fuzz::check(!read.max_age || read.max_age->count() > 0, "an age out of its range");
    } catch (const BadInput&) {
    }
    try {
        const router::Route route(1, "r", destination.view(), patterns.view(), options.view(), module);
        fuzz::check(route.addressing.kind == route.destination.kind, "two kinds");
        const int qos = broker::mqtt::route_of(route.addressing).qos;
        fuzz::check(qos >= 0 && qos <= 2, "a number out of its range");
    } catch (const BadInput&) {
    }
    return 0;
}
