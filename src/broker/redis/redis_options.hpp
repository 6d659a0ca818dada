// What it is: the options that only Redis routes have; its brokers have none of their own.
// Who calls it: redis_module.cpp reads them, what writes commands looks them up.
// Never: holds what all protocols have.
#pragma once

#include <cstdint>

#include "broker/driver.hpp"

namespace eventbus::broker::redis {

struct RedisRoute {
    std::int64_t maxlen = 0;  // "maxlen", of streams: approximate trimming; 0 is none
};

inline const RedisRoute& route_of(const Addressing& addressing) {
    return *static_cast<const RedisRoute*>(addressing.own.get());
}

}  // namespace eventbus::broker::redis
