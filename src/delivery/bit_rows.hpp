// What it is: a small table of bits: rows by a number, made as they are needed, a bit for each event of a chunk.
// Who calls it: the feed, for what routes take of a chunk and for what they had settled earlier.
// Never: takes memory for a row without bits.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace eventbus::delivery {

class BitRows {
 public:
    explicit BitRows(std::size_t columns) : columns_(columns), words_((columns + 63) / 64) {}

    void set(std::uint32_t row, std::size_t column) {
        bits_[at_or_new(row) * words_ + column / 64] |= std::uint64_t{1} << (column % 64);
    }
    bool has(std::uint32_t row, std::size_t column) const {
        const auto found = find(row);
        return found != none && ((bits_[found * words_ + column / 64] >> (column % 64)) & 1) != 0;
    }
    std::size_t count() const {
        std::size_t set = 0;
        for (const auto word : bits_) set += static_cast<std::size_t>(std::popcount(word));
        return set;
    }
    // The first column from `column` on that is set, or the number of columns.
    std::size_t next(std::uint32_t row, std::size_t column) const {
        const auto found = find(row);
        if (found == none) return columns_;
        for (auto word = column / 64; word < words_; ++word) {
            auto bits = bits_[found * words_ + word];
            if (word == column / 64) bits &= ~std::uint64_t{0} << (column % 64);
            if (bits != 0) return word * 64 + static_cast<std::size_t>(std::countr_zero(bits));
        }
        return columns_;
    }

 private:
    static constexpr std::size_t none = ~std::size_t{0};
    using Row = std::pair<std::uint32_t, std::uint32_t>;  // its number, and which of the stretches of bits it is
    std::vector<Row>::const_iterator place_of(std::uint32_t row) const {
        return std::lower_bound(rows_.begin(), rows_.end(), row,
                                [](const Row& one, std::uint32_t number) { return one.first < number; });
    }
    std::size_t find(std::uint32_t row) const {
        const auto found = place_of(row);
        return found != rows_.end() && found->first == row ? found->second : none;
    }
    std::size_t at_or_new(std::uint32_t row) {
        const auto found = place_of(row);
        if (found != rows_.end() && found->first == row) return found->second;
        const auto made = static_cast<std::uint32_t>(rows_.size());
        rows_.insert(found, {row, made});
        bits_.resize(bits_.size() + words_);
        return made;
    }

    std::size_t columns_;
    std::size_t words_;
    std::vector<Row> rows_;  // rising
    std::vector<std::uint64_t> bits_;
};

}  // namespace eventbus::delivery
