// What it is: which event it is: what messages carry as its id, and all that tells one event from another here.
// Who calls it: everybody: readers give it, drivers, dead letters, waiters and parked keys know an event by it.
// Never: allocates, or points to anything: it goes over borders of processes, and into shared memory, as it is.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

namespace eventbus {

// An event of the log has a number, 17; one of the WAL a place, 0/16B3748-3: where its transaction's commit stands, and
// the how-manieth change of it it is. Order is that of publishing among the log's, of commits among the WAL's. No route
// has both; the log's come before the WAL's.
struct EventId {
    std::uint64_t lsn = 0;  // 0: of the log
    std::int64_t number = 0;

    static constexpr EventId of_log(std::int64_t number) { return {0, number}; }
    constexpr bool is_of_log() const { return lsn == 0; }
    auto operator<=>(const EventId&) const = default;
};

using EventIdText = std::array<char, 40>;
std::string_view to_text(const EventId& id, EventIdText& text);  // a NUL follows
// What to_text() has written, and what people write for it: blanks around it, a plus, small letters. Nothing else.
std::optional<EventId> read_event_id(std::string_view text);

}  // namespace eventbus

template <>
struct std::hash<eventbus::EventId> {
    std::size_t operator()(const eventbus::EventId& id) const noexcept {
        return static_cast<std::size_t>(id.lsn * 0x9E3779B97F4A7C15u ^ static_cast<std::uint64_t>(id.number));
    }
};
