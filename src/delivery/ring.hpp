// What it is: a queue in one block of memory: appended at the back, taken from the front, indexed in between.
// Who calls it: RouteQueue, for its tickets.
// Never: allocates once it has grown to the size that is needed, unless it was made small meanwhile.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace eventbus::delivery {

template <typename T>
class Ring {
 public:
    bool empty() const { return size_ == 0; }
    std::size_t size() const { return size_; }
    T& operator[](std::size_t i) { return slots_[(head_ + i) & (slots_.size() - 1)]; }
    const T& operator[](std::size_t i) const { return slots_[(head_ + i) & (slots_.size() - 1)]; }
    T& front() { return slots_[head_]; }
    const T& front() const { return slots_[head_]; }

    void push_back(T value) {
        if (size_ == slots_.size()) grow();
        (*this)[size_] = std::move(value);
        ++size_;
    }
    void pop_front() {
        head_ = (head_ + 1) & (slots_.size() - 1);
        --size_;
    }
    // Hundreds of routes may have had long queues, one after the other.
    void give_back_if_empty() {
        constexpr std::size_t kept = 512;
        if (size_ > 0 || slots_.size() <= kept) return;
        slots_ = std::vector<T>();
        head_ = 0;
    }

 private:
    void grow() {
        std::vector<T> wider(slots_.empty() ? 64 : slots_.size() * 2);
        for (std::size_t i = 0; i < size_; ++i) wider[i] = std::move((*this)[i]);
        slots_ = std::move(wider);
        head_ = 0;
    }

    std::vector<T> slots_;  // a power of two
    std::size_t head_ = 0;
    std::size_t size_ = 0;
};

}  // namespace eventbus::delivery
