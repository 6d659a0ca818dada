// What it is: the characters of a text in UTF-8, one by one.
// Who calls it: whoever has to know which of them a text holds: the rule of topics, drivers whose protocol refuses some.
// Never: says what is wrong with a text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace eventbus {

struct Character {
    std::uint32_t point = 0;
    std::size_t bytes = 0;  // 0: what stands there is no UTF-8 (a surrogate and what is overlong is none, either)
};

inline Character character_at(std::string_view text, std::size_t at) {
    const auto lead = static_cast<unsigned char>(text[at]);
    if (lead < 0x80) return {lead, 1};
    const std::size_t bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - at < bytes) return {};
    std::uint32_t point = lead & (0xffU >> (bytes + 1));
    for (std::size_t i = 1; i < bytes; ++i) {
        const auto next = static_cast<unsigned char>(text[at + i]);
        if ((next & 0xc0) != 0x80) return {};
        point = point << 6 | (next & 0x3f);
    }
    if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff) || (bytes == 3 && point < 0x800) ||
        (bytes == 4 && point < 0x10000))
        return {};
    return {point, bytes};
}

// Unicode's category Cc.
inline bool is_control(std::uint32_t point) {
    return point < 0x20 || (point >= 0x7f && point <= 0x9f);
}

// Whether a control character begins there, in text that is UTF-8.
inline bool is_control_at(std::string_view text, std::size_t at) {
    const auto c = static_cast<unsigned char>(text[at]);
    if (c != 0xc2) return c < 0x20 || c == 0x7f;
    return at + 1 < text.size() && (static_cast<unsigned char>(text[at + 1]) & 0xe0) == 0x80;
}

// "U+000A"
inline std::string name_of(std::uint32_t point) {
    std::array<char, 16> name;
    const int length = std::snprintf(name.data(), name.size(), "U+%04X", static_cast<unsigned>(point));
    return {name.data(), static_cast<std::size_t>(length)};
}

}  // namespace eventbus
