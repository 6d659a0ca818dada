// What it is: a module asked as the loader and the router ask it: options in their texts, handles of what it makes of them.
// Who calls it: unit tests and fuzzers of the protocols.
// Never: knows a protocol.
#pragma once

#include <string>

#include "broker/driver.hpp"

extern "C" const eventbus::broker::Module* eventbus_driver_module();

namespace eventbus::test {

// Reads all of a broker's options, whose URL stands in the settings. Throws BadInput. Returns which do nothing.
inline IdleOptions take_options(BrokerSettings& settings, const std::string& json = "{}") {
    const broker::Module& module = *eventbus_driver_module();
    const Options given(known_broker_options(module.protocol, module.broker_options), json);
    IdleOptions idle;
    settings.options = read_broker_options(given);
    if (module.read_broker != nullptr) settings.own = module.read_broker(settings, given, idle);
    return idle;
}

// How a route of that kind and those options addresses its messages.
inline broker::Addressing addressing_of(const std::string& kind, const std::string& json = "{}", bool varies = false) {
    const broker::Module& module = *eventbus_driver_module();
    const Options given({OptionsOf::route, module.protocol, {module.route_options}, {}}, json);
    return {.kind = kind, .varies = varies, .own = module.read_route(kind, given).own};
}

}  // namespace eventbus::test
