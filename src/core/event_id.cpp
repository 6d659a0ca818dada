#include "core/event_id.hpp"

#include <charconv>

namespace eventbus {

namespace {

constexpr int hexadecimal = 16;

// PostgreSQL writes an LSN's hexadecimal digits in capitals.
char* write_hex(char* at, char* end, std::uint32_t number) {
    char* last = std::to_chars(at, end, number, hexadecimal).ptr;
    for (; at < last; ++at)
        if (*at >= 'a') *at = static_cast<char>(*at - 'a' + 'A');
    return last;
}

bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

template <class Number>
bool take_number(std::string_view& text, Number& number, int base) {
    const auto read = std::from_chars(text.data(), text.data() + text.size(), number, base);
    if (read.ec != std::errc()) return false;
    text.remove_prefix(static_cast<std::size_t>(read.ptr - text.data()));
    return true;
}

bool take(std::string_view& text, char c) {
    if (!text.starts_with(c)) return false;
    text.remove_prefix(1);
    return true;
}

}  // namespace

std::string_view to_text(const EventId& id, EventIdText& text) {
    char* at = text.data();
    char* const end = at + text.size();
    if (!id.is_of_log()) {
        at = write_hex(at, end, static_cast<std::uint32_t>(id.lsn >> 32));
        *at++ = '/';
        at = write_hex(at, end, static_cast<std::uint32_t>(id.lsn));
        *at++ = '-';
    }
    at = std::to_chars(at, end, id.number).ptr;
    *at = '\0';
    return {text.data(), static_cast<std::size_t>(at - text.data())};
}

std::optional<EventId> read_event_id(std::string_view text) {
    while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
    EventId id;
    const bool is_of_wal = text.find('/') != std::string_view::npos;
    if (is_of_wal) {
        std::uint32_t high = 0;
        std::uint32_t low = 0;
        if (!take_number(text, high, hexadecimal) || !take(text, '/') || !take_number(text, low, hexadecimal) ||
            !take(text, '-'))
            return std::nullopt;
        id.lsn = static_cast<std::uint64_t>(high) << 32 | low;
    } else if (text.starts_with("+") && !text.starts_with("+-")) {
        text.remove_prefix(1);
    }
    if (!take_number(text, id.number, 10) || !text.empty()) return std::nullopt;
    if (is_of_wal && (id.lsn == 0 || id.number < 0)) return std::nullopt;
    return id;
}

}  // namespace eventbus
