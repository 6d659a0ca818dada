// What it is: a point in time as RFC 3339 text; see time_text.hpp.
// Who calls it: the drivers, once an event.
// Never: allocates, asks a locale or reads a clock.
#include "core/time_text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>

namespace eventbus {

namespace {

constexpr std::int64_t second = 1'000'000;
constexpr std::int64_t oldest = -62'167'219'200 * second;      // 0000-01-01T00:00:00.000000Z
constexpr std::int64_t newest = 253'402'300'800 * second - 1;  // 9999-12-31T23:59:59.999999Z

void digits(char* at, unsigned value, int count) {
    for (int i = count - 1; i >= 0; --i) {
        at[i] = static_cast<char>('0' + value % 10);
        value /= 10;
    }
}

}  // namespace

std::string_view rfc3339(std::int64_t unix_us, std::span<char, rfc3339_length> buffer) {
    namespace chrono = std::chrono;
    const chrono::sys_time<chrono::microseconds> time{chrono::microseconds{std::clamp(unix_us, oldest, newest)}};
    const auto midnight = chrono::floor<chrono::days>(time);
    const chrono::year_month_day date{midnight};
    const auto of_day = (time - midnight).count();
    const auto seconds = static_cast<unsigned>(of_day / second);

    char* out = buffer.data();
    digits(out, static_cast<unsigned>(static_cast<int>(date.year())), 4);
    out[4] = '-';
    digits(out + 5, static_cast<unsigned>(date.month()), 2);
    out[7] = '-';
    digits(out + 8, static_cast<unsigned>(date.day()), 2);
    out[10] = 'T';
    digits(out + 11, seconds / 3600, 2);
    out[13] = ':';
    digits(out + 14, seconds / 60 % 60, 2);
    out[16] = ':';
    digits(out + 17, seconds % 60, 2);
    out[19] = '.';
    digits(out + 20, static_cast<unsigned>(of_day % second), 6);
    out[26] = 'Z';
    return {out, rfc3339_length};
}

std::optional<std::int64_t> unix_us_of(std::string_view text) {
    namespace chrono = std::chrono;
    if (text.size() != rfc3339_length) return std::nullopt;
    const auto number = [text](std::size_t at, std::size_t length) {
        unsigned value = 0;
        std::from_chars(text.data() + at, text.data() + at + length, value);
        return value;
    };
    const chrono::sys_days midnight =
        chrono::year(static_cast<int>(number(0, 4))) / chrono::month(number(5, 2)) / chrono::day(number(8, 2));
    const std::int64_t of_day = (number(11, 2) * 60 + number(14, 2)) * 60 + number(17, 2);
    const std::int64_t time = midnight.time_since_epoch().count() * 86'400 * second + of_day * second + number(20, 6);
    std::array<char, rfc3339_length> again;
    if (rfc3339(time, again) != text) return std::nullopt;
    return time;
}

}  // namespace eventbus
