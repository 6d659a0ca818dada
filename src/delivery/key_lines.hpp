// What it is: the keys of a route on which events stand in line, and the lines.
// Who calls it: RouteQueue; with order "key" only keys in trouble have a line, with "strict" every key under way.
// Never: keeps a view into a chunk: a line may outlive the chunk of the event that opened it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace eventbus::delivery {

class KeyLine {
 public:
    static constexpr std::uint64_t nobody = ~std::uint64_t{0};

    std::uint64_t open = nobody;  // the ticket of this line that is under way
    std::uint64_t trouble = 0;    // the offer that was refused first; 0: none since one was delivered

    // A key that was refused goes one by one until so many were delivered: what goes together may be refused and taken
    // in turn, by a full queue that somebody drains.
    bool is_calm() const { return delivered_since_refused_ >= calm_after; }
    void delivered() {
        ++delivered_since_refused_;
        trouble = 0;
    }
    void refused() { delivered_since_refused_ = 0; }

    bool empty() const { return head_ == waiting_.size(); }
    std::uint64_t front() const { return waiting_[head_]; }
    bool has(std::uint64_t number) const { return std::binary_search(begin(), waiting_.cend(), number); }
    void insert(std::uint64_t number) {
        const auto at = std::lower_bound(begin(), waiting_.cend(), number);
        if (at == waiting_.cend() || *at != number) waiting_.insert(at, number);
    }
    void erase(std::uint64_t number) {
        const auto at = std::lower_bound(begin(), waiting_.cend(), number);
        if (at == waiting_.cend() || *at != number) return;
        if (at == begin()) {
            pop_front();
        } else {
            waiting_.erase(at);
        }
    }
    void pop_front() {
        if (++head_ == waiting_.size()) clear();
    }
    void clear() {
        waiting_.clear();
        head_ = 0;
    }
    void reset() {
        clear();
        open = nobody;
        trouble = 0;
        delivered_since_refused_ = calm_after;
    }

 private:
    static constexpr std::uint64_t calm_after = 100;
    std::vector<std::uint64_t>::const_iterator begin() const {
        return waiting_.begin() + static_cast<std::ptrdiff_t>(head_);
    }
    std::vector<std::uint64_t> waiting_;  // rising, from head_ on
    std::size_t head_ = 0;
    std::uint64_t delivered_since_refused_ = calm_after;
};

struct KeyHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view key) const { return std::hash<std::string_view>{}(key); }
};

class KeyLines {
 public:
    bool empty() const { return lines_.empty(); }
    std::size_t size() const { return lines_.size(); }
    KeyLine* find(std::string_view key) {
        if (lines_.empty()) return nullptr;
        const auto found = lines_.find(key);
        return found == lines_.end() ? nullptr : &found->second;
    }
    KeyLine& make(std::string_view key) {
        if (spare_.empty()) return lines_[std::string(key)];
        auto node = std::move(spare_.back());
        spare_.pop_back();
        node.key() = key;
        return lines_.insert(std::move(node)).position->second;
    }
    void erase(std::string_view key) {
        auto node = lines_.extract(lines_.find(key));
        node.mapped().reset();
        if (spare_.size() < most_spare) spare_.push_back(std::move(node));
    }
    void clear() { lines_.clear(); }

 private:
    using Lines = std::unordered_map<std::string, KeyLine, KeyHash, std::equal_to<>>;
    static constexpr std::size_t most_spare = 1024;
    Lines lines_;
    std::vector<Lines::node_type> spare_;
};

}  // namespace eventbus::delivery
