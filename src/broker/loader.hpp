// What it is: finding a protocol's module by a URL's scheme and loading it; any number of modules.
// Who calls it: the SQL functions that check brokers and routes, and the sender.
// Never: unloads a module: threads of its libraries may still run.
#pragma once

#include <string>
#include <string_view>

#include "broker/driver.hpp"

namespace eventbus::broker {

// A module is pg_eventbus_NAME.so in the directory. Asked for a scheme is the one of its NAME, or of its NAME and an
// "s" (amqps), first, then all others until one has it; what it says is remembered. One that cannot be loaded (its
// client library is missing, it is of another build, it is no module) disables itself alone.

// The module for the scheme; it stays. Throws BadInput: no module has it (the known ones are listed, and what could not
// be loaded, with why), or the one of its name cannot be loaded.
const Module* load_module(std::string_view scheme, const std::string& directory);

// Everything that can be checked of a broker without talking to it. Throws BadInput. idle: which of its options do
// nothing.
BrokerSettings read_broker(std::string_view name, std::string_view url, std::string_view options_json,
                           const std::string& directory, IdleOptions* idle = nullptr);

// Throws BadInput where brokers of that protocol have no option of that name.
void check_broker_option(const std::string& name, const Module& module);

}  // namespace eventbus::broker
