// What it is: finding a protocol's module by URL scheme and loading it.
// Who calls it: the SQL functions that check brokers and routes, and the sender.
// Never: unloads a module: threads of its libraries may still run.
#pragma once

#include <string>
#include <string_view>

#include "broker/driver.hpp"

namespace eventbus::broker {

// The module for the scheme (it stays), loaded from `directory` on first use. Throws BadInput: unknown scheme (the
// known ones are listed), module missing or its client library missing, or built for another version of pg_eventbus.
const Module* load_module(std::string_view scheme, const std::string& directory);

// Everything that can be checked of a broker without talking to it. Throws BadInput.
BrokerSettings read_broker(std::string_view name, std::string_view url, std::string_view options_json,
                           const std::string& directory);

// Of a broker that read_broker has taken: which of its options do nothing.
IdleOptions idle_options(const BrokerSettings& settings, const std::string& directory);

}  // namespace eventbus::broker
