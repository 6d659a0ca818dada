// What it is: modules for the tests of the loader, one for each MODULE_name: two good ones, and bad ones.
// Who calls it: broker_loader_test.cpp, by dlopen.
// Never: makes a driver.
#include <array>

#include "broker/driver.hpp"

namespace {

using namespace eventbus;
using namespace eventbus::broker;

#ifdef MODULE_second
constexpr const char* name = "second";
constexpr std::array<Scheme, 3> schemes{{{"second", 22}, {"seconds", 23}, {"shared", 24}}};
constexpr std::array<OtherNames, 1> other_names{{{" zweitens ", "That is German.", "Write second://."}}};
constexpr std::array<std::string_view, 1> options{"of_second"};
#else
constexpr const char* name = "first";
constexpr std::array<Scheme, 3> schemes{{{"first", 11}, {"shared", 12}, {"place", 0, false}}};
constexpr std::array<OtherNames, 1> other_names{{{" zweitens uno ", "", "Or first://."}}};
constexpr std::array<std::string_view, 1> options{"of_first"};
#endif

const Module module{.protocol = name,
                    .schemes = schemes,
                    .other_names = other_names,
                    .route_options = options,
                    .broker_options = options,
#ifndef MODULE_lame
                    .connect = [](const BrokerSettings&, unsigned, TimePoint) { return std::unique_ptr<Driver>(); }
#endif
};

}  // namespace

#ifndef MODULE_silent
extern "C" const Module* eventbus_driver_module() {
#ifdef MODULE_alien
    static Module alien = module;
    ++alien.build;
    return &alien;
#else
    return &module;
#endif
}
#endif
