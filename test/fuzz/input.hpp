// What it is: what the fuzzers share: the input as numbers and pieces, and a check that is never compiled away.
// Who calls it: *_fuzz.cpp.
// Never: hands out a piece with a byte to spare behind it: reading too far is to be seen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

namespace eventbus::fuzz {

inline void check(bool holds, const char* what, std::string_view shown = {}) {
    if (holds) return;
    std::fprintf(stderr, "\nfuzz: %s: %.*s\n", what, static_cast<int>(shown.size()), shown.data());
    std::abort();
}

// A copy in memory of exactly its size.
class Exact {
 public:
    explicit Exact(std::string_view text) : size_(text.size()), bytes_(new char[text.size()]) {
        if (size_ > 0) std::memcpy(bytes_.get(), text.data(), size_);
    }
    std::string_view view() const { return {bytes_.get(), size_}; }

 private:
    std::size_t size_;
    std::unique_ptr<char[]> bytes_;
};

class Input {
 public:
    Input(const std::uint8_t* data, std::size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

    bool empty() const { return rest_.empty(); }
    unsigned byte() {
        if (rest_.empty()) return 0;
        const auto value = static_cast<unsigned char>(rest_.front());
        rest_.remove_prefix(1);
        return value;
    }
    std::uint64_t number(int bytes) {
        std::uint64_t value = 0;
        for (int i = 0; i < bytes; ++i) value = value << 8 | byte();
        return value;
    }
    // Of a length that stands before it, in two bytes.
    std::string_view piece() {
        const std::size_t size = number(2);
        const auto taken = rest_.substr(0, size);
        rest_.remove_prefix(taken.size());
        return taken;
    }
    std::string_view rest() { return rest_; }

 private:
    std::string_view rest_;
};

inline std::string_view view(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

}  // namespace eventbus::fuzz
