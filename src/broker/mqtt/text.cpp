#include "broker/mqtt/text.hpp"

#include "broker/mqtt/packets.hpp"
#include "core/utf8.hpp"

namespace eventbus::broker::mqtt {

namespace {

bool is_sendable(Character character) {
    const auto [point, bytes] = character;
    const bool is_none = (point >= 0xfdd0 && point <= 0xfdef) || (point & 0xfffe) == 0xfffe;
    return bytes > 0 && !is_control(point) && !is_none;
}

}  // namespace

std::string flaw_in_text(std::string_view text) {
    if (text.size() > longest_string)
        return "is " + std::to_string(text.size()) + " bytes long; MQTT takes at most 65535";
    for (std::size_t at = 0; at < text.size();) {
        const Character character = character_at(text, at);
        if (character.bytes == 0) return "is not valid UTF-8";
        if (!is_sendable(character))
            return "has the character " + name_of(character.point) + ", which no MQTT text may have";
        at += character.bytes;
    }
    return {};
}

std::string flaw_in_part_of_name(std::string_view part) {
    if (const auto at = part.find_first_of("+#"); at != std::string_view::npos)
        return std::string("has a \"") + part[at] + "\", which no MQTT topic may have";
    return flaw_in_text(part);
}

std::string flaw_in_name(std::string_view name) {
    return name.empty() ? "is empty" : flaw_in_part_of_name(name);
}

std::string with_marks(std::string_view text) {
    std::string made;
    for (std::size_t at = 0; at < text.size();) {
        const Character character = character_at(text, at);
        const auto bytes = character.bytes > 0 ? character.bytes : 1;
        const auto one = is_sendable(character) ? text.substr(at, bytes) : std::string_view("?");
        if (made.size() + one.size() > longest_string) break;
        made += one;
        at += bytes;
    }
    return made;
}

}  // namespace eventbus::broker::mqtt
