// What it is: whether a text is JSON.
// Who calls it: the WAL's reader, of messages that anybody may have written; whoever reads headers.
// Never: recurses; makes anything of it.
#pragma once

#include <cstddef>
#include <string_view>

namespace eventbus {

// Deeper than that no receiver can be trusted to read it.
inline constexpr std::size_t deepest_json = 1000;

// One value as RFC 8259 has it, with white space around it, nested no deeper than that or `deepest`, which is no more.
// Bytes beyond ASCII are not looked at.
bool is_json(std::string_view text);
bool is_json_object(std::string_view text, std::size_t deepest = deepest_json);

}  // namespace eventbus
