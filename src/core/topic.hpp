// What it is: the rule of topics.
// Who calls it: publish, for each event; the WAL's reader, of messages that anybody may have written.
// Never: says what is wrong; router::check_topic does.
#pragma once

#include <cstddef>
#include <string_view>

namespace eventbus {

inline constexpr std::size_t longest_topic = 255;  // bytes

inline bool is_topic(std::string_view topic) {
    if (topic.empty() || topic.size() > longest_topic) return false;
    char before = '.';
    for (const char c : topic) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '*' || c == '#' || c == '+') return false;
        if (c == '.' && before == '.') return false;
        before = c;
    }
    return before != '.';
}

}  // namespace eventbus
