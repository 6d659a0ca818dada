// What it is: one event, as every room after the log sees it.
// Who calls it: the log's and the WAL's readers fill it; router, delivery and drivers read it.
// Never: owns memory. The views stay valid while the chunk that carries the event is lent.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/event_id.hpp"

namespace eventbus {

struct Event {
    EventId id;                     // unique in its source
    std::int64_t published_at = 0;  // microseconds since 1970-01-01 00:00:00 UTC
    // The WAL has no time of it (a message of no transaction): published_at is when it was read, each time again.
    bool is_timeless = false;
    std::string_view topic;  // words joined by dots, 1 to 255 bytes
    std::optional<std::string_view> key;
    std::string_view payload;
    std::string_view content_type;  // "application/json" for eventbus.publish
    std::string_view headers;       // a JSON object, or empty where there are none
    bool is_bytes = false;          // the payload is not text
    // Why it can be delivered nowhere: it could not be read as a whole, and these are its remains. It becomes a dead
    // letter of each route that takes it; an empty topic, which could not be read, is taken by all. Empty: it is whole.
    std::string_view error;
};

}  // namespace eventbus
