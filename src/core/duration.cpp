#include "core/duration.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

namespace eventbus {

namespace {

struct Unit {
    double seconds;
    std::string_view names;  // between blanks
};

constexpr std::array<Unit, 6> units = {{{0.001, " ms msec msecs millisecond milliseconds "},
                                        {1, " s sec secs second seconds "},
                                        {60, " m min mins minute minutes "},
                                        {3600, " h hr hrs hour hours "},
                                        {86400, " d day days "},
                                        {604800, " w week weeks "}}};

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

void skip_blanks(std::string_view& text) {
    while (text.starts_with(' ')) text.remove_prefix(1);
}

// std::from_chars would take "inf" and signs.
std::optional<double> take_number(std::string_view& text) {
    if (text.empty() || !is_digit(text.front())) return std::nullopt;
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    if (error != std::errc()) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return number;
}

// hours:minutes or hours:minutes:seconds, of which only the first may be more than 59.
std::optional<double> read_clock(std::string_view text) {
    double seconds = 0;
    int parts = 0;
    for (; parts < 3; ++parts) {
        const bool last = text.find(':') == std::string_view::npos;
        const auto digits =
            static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), is_digit) - text.begin());
        const auto number = take_number(text);
        if (!number || digits == 0 || digits > 9 || (parts > 0 && (digits != 2 || *number >= 60))) return std::nullopt;
        seconds = seconds * 60 + *number;
        if (last) break;
        if (!text.starts_with(':')) return std::nullopt;
        text.remove_prefix(1);
    }
    if (!text.empty() || parts == 0) return std::nullopt;
    return parts == 1 ? seconds * 60 : seconds;
}

}  // namespace

std::optional<double> read_duration(std::string_view text) {
    skip_blanks(text);
    while (text.ends_with(' ')) text.remove_suffix(1);
    if (text.find(':') != std::string_view::npos) return read_clock(text);
    double seconds = 0;
    bool any = false;
    while (!text.empty()) {
        const auto number = take_number(text);
        if (!number) return std::nullopt;
        skip_blanks(text);
        const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
        const auto length =
            static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), is_letter) - text.begin());
        if (length == 0) return any || !text.empty() ? std::nullopt : number;  // a number alone
        std::string name = " " + std::string(text.substr(0, length)) + " ";
        for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
        const auto* unit =
            std::find_if(units.begin(), units.end(), [&](const Unit& u) { return u.names.find(name) != u.names.npos; });
        if (unit == units.end()) return std::nullopt;
        seconds += *number * unit->seconds;
        any = true;
        text.remove_prefix(length);
        skip_blanks(text);
    }
    if (!any) return std::nullopt;
    return seconds;
}

}  // namespace eventbus
