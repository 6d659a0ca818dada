// What it is: a driver whose reasons are fit to be shown: without the secrets that we sent, in one line, not too long.
// Who calls it: the modules, around each driver that they make.
// Never: changes what a driver does.
#pragma once

#include <memory>

#include "broker/driver.hpp"

namespace eventbus::broker {

std::unique_ptr<Driver> redacted(std::unique_ptr<Driver> driver, const BrokerSettings& settings);

}  // namespace eventbus::broker
