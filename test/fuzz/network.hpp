// What it is: what lies between a driver and a fuzzer that plays its broker.
// Who calls it: fake_stream.cpp, the drivers' end of it; conversation.hpp, the broker's.
// Never: is there twice at a time.
#pragma once

#include <cstddef>
#include <string>

namespace eventbus::fuzz {

struct Network {
    std::string to_driver;
    std::string from_driver;
    bool takes = true;   // what the driver sends
    bool ended = false;  // by the broker, behind what stands in to_driver
    std::size_t unsent = 0;
    std::size_t unread = 0;  // what the driver has got and not consumed
};

inline Network network;

}  // namespace eventbus::fuzz
