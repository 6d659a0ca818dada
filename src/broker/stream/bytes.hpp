// What it is: a queue of bytes that is filled at its end and consumed at its beginning.
// Who calls it: the stream, for what it received and for TLS records on their way out.
// Never: keeps the memory of one huge message for ever, nor moves bytes at every consume().
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>

namespace eventbus::broker {

// What an empty buffer may keep; above it, memory is given back.
inline constexpr std::size_t kept_capacity = 4 * 1024 * 1024;

class Bytes {
 public:
    std::string_view view() const { return {data_.get() + begin_, end_ - begin_}; }
    std::size_t size() const { return end_ - begin_; }
    bool empty() const { return begin_ == end_; }

    // Room for at least `least` bytes after the end; commit() says how many were put there.
    char* room(std::size_t least) {
        if (capacity_ - end_ < least) wait_for_space(least);
        return data_.get() + end_;
    }
    void commit(std::size_t bytes) { end_ += bytes; }

    void consume(std::size_t bytes) {
        begin_ += std::min(bytes, size());
        if (!empty()) return;
        begin_ = end_ = 0;
        if (capacity_ > kept_capacity) {
            data_.reset();
            capacity_ = 0;
        }
    }

 private:
    void wait_for_space(std::size_t least) {
        const std::size_t length = size();
        if (capacity_ - length >= least && begin_ >= length) {
            std::memcpy(data_.get(), data_.get() + begin_, length);
        } else {
            const std::size_t wanted = std::max(length + least, 2 * capacity_);
            std::unique_ptr<char[]> grown(new char[wanted]);
            if (length > 0) std::memcpy(grown.get(), data_.get() + begin_, length);
            data_ = std::move(grown);
            capacity_ = wanted;
        }
        begin_ = 0;
        end_ = length;
    }

    std::unique_ptr<char[]> data_;
    std::size_t capacity_ = 0;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
};

}  // namespace eventbus::broker
