// What it is: the limits of an event's headers, and their reading.
// Who calls it: publish and the WAL's reader, for the limits; drivers and templates, to read.
// Never: lets more through than can be walked by recursion.
#pragma once

#include <cstddef>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace eventbus {

// A JSON object is of depth 1.
inline constexpr std::size_t deepest_headers = 100;
inline constexpr std::size_t longest_headers = 1024 * 1024;  // bytes of its text, as publish counts it
// In UTF-8 the text may be longer than in the database's encoding, and capture adds two of its own.
inline constexpr std::size_t longest_headers_delivered = 4 * longest_headers + 1024;

// Whether the text is a JSON object within these limits.
bool are_headers(std::string_view text);
// The object; a value that is none where the text is no such, or has a number that no double holds.
nlohmann::json parse_headers(std::string_view text);

}  // namespace eventbus
