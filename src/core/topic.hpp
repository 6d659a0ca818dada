// What it is: the rule of topics, as they are delivered: in UTF-8.
// Who calls it: publish, for each event; the WAL's reader, of messages that anybody may have written.
// Never: says what is wrong; router::check_topic does.
#pragma once

#include <cstddef>
#include <string_view>

#include "core/utf8.hpp"

namespace eventbus {

inline constexpr std::size_t longest_topic = 255;  // bytes

inline bool is_topic(std::string_view topic) {
    if (topic.empty() || topic.size() > longest_topic) return false;
    char before = '.';
    for (std::size_t at = 0; at < topic.size(); ++at) {
        const char c = topic[at];
        if (is_control_at(topic, at) || c == '*' || c == '#' || c == '+') return false;
        if (c == '.' && before == '.') return false;
        before = c;
    }
    return before != '.';
}

}  // namespace eventbus
