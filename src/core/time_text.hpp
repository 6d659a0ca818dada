// What it is: a point in time as RFC 3339 text, UTC, microseconds: 2026-11-20T04:53:00.123456Z.
// Who calls it: the drivers, once an event.
// Never: allocates, asks a locale or reads a clock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace eventbus {

inline constexpr std::size_t rfc3339_length = 27;

// Writes into the buffer and returns the part written. Times outside of the years 0000 to 9999, which the
// format cannot say, are moved to its nearest end.
std::string_view rfc3339(std::int64_t unix_us, std::span<char, rfc3339_length> buffer);

// The inverse, for exactly the texts that rfc3339() writes.
std::optional<std::int64_t> unix_us_of(std::string_view rfc3339_text);

}  // namespace eventbus
