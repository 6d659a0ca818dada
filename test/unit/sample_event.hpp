// What it is: the event that the drivers' tests send.
// Who calls it: the tests of the brokers' rooms.
// Never: sets what a test may want absent: key and headers are the test's.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/event.hpp"

namespace eventbus::test {

inline Event event_of(std::int64_t id, std::string_view payload = "{}") {
    Event event;
    event.id = EventId::of_log(id);
    event.published_at = 1'795'150'380'123'456;  // 2026-11-20T04:53:00.123456Z
    event.topic = "shop.order.created";
    event.payload = payload;
    event.content_type = "application/json";
    return event;
}

}  // namespace eventbus::test
