// What it is: an event's id as messages carry it, and as texts name it.
// Who calls it: drivers and delivery, for every event; the WAL's cursors and dead letters.
// Never: allocates.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/event.hpp"

namespace eventbus {

// Of an event from the log a number; of one from the WAL "<commit LSN>-<n>", such as 0/16B3748-5.
struct EventId {
    std::uint64_t lsn = 0;  // 0: from the log
    std::int64_t number = 0;
    auto operator<=>(const EventId&) const = default;
};

inline EventId id_of(const Event& event) {
    return event.lsn == 0 ? EventId{0, event.id} : EventId{event.lsn, event.number};
}

using EventIdText = std::array<char, 40>;
std::string_view to_text(const EventId& id, EventIdText& text);
inline std::string_view id_text(const Event& event, EventIdText& text) {
    return to_text(id_of(event), text);
}
std::optional<EventId> read_event_id(std::string_view text);

}  // namespace eventbus
