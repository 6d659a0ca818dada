// What it is: what the baseline programs share: the clock, arguments, failing, and the entries they send.
// Who calls it: xadd, amqp_publish and latency.
// Never: knows the extension; these programs are what a user could have written without it.
#pragma once

#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

inline std::int64_t now_ns() {
    timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1'000'000'000LL + at.tv_nsec;
}

[[noreturn]] inline void fail(std::string_view what, std::string_view why) {
    std::fprintf(stderr, "%.*s: %.*s\n", static_cast<int>(what.size()), what.data(), static_cast<int>(why.size()),
                 why.data());
    std::exit(1);
}

// name=value, each of them required
class Arguments {
 public:
    Arguments(int argc, char** argv) {
        for (int i = 1; i < argc; ++i) {
            const std::string_view text = argv[i];
            const auto equals = text.find('=');
            if (equals == std::string_view::npos) fail(text, "expected name=value");
            values_[std::string(text.substr(0, equals))] = text.substr(equals + 1);
        }
    }
    const std::string& text(const std::string& name) const {
        const auto found = values_.find(name);
        if (found == values_.end()) fail(name, "missing argument");
        return found->second;
    }
    std::int64_t number(const std::string& name) const { return std::strtoll(text(name).c_str(), nullptr, 10); }

 private:
    std::map<std::string, std::string> values_;
};

// What differs from one event to the next; made before the clock starts.
struct Stamp {
    std::string id;    // decimal
    std::string time;  // RFC 3339 with microseconds
};

inline std::vector<Stamp> make_stamps(std::int64_t count) {
    std::vector<Stamp> stamps(static_cast<std::size_t>(count));
    timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    std::int64_t micros = at.tv_sec * 1'000'000LL + at.tv_nsec / 1000;
    for (std::int64_t i = 0; i < count; ++i, ++micros) {
        const time_t seconds = micros / 1'000'000;
        tm parts;
        gmtime_r(&seconds, &parts);
        char text[64];
        std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", parts.tm_year + 1900, parts.tm_mon + 1,
                      parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, static_cast<int>(micros % 1'000'000));
        stamps[static_cast<std::size_t>(i)] = {std::to_string(i + 1), text};
    }
    return stamps;
}

inline void print_rate(std::int64_t count, std::int64_t nanoseconds) {
    std::printf("{\"count\": %lld, \"seconds\": %.6f}\n", static_cast<long long>(count),
                static_cast<double>(nanoseconds) / 1e9);
}

}  // namespace bench
