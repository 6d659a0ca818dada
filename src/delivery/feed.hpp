// What it is: the chunks that are lent on one stream, in order, and the places within them.
// Who calls it: the dispatcher lends and releases; route queues walk along.
// Never: knows routes or tickets.
#pragma once

#include <compare>
#include <deque>
#include <optional>
#include <vector>

#include "delivery/bit_rows.hpp"
#include "delivery/dispatcher.hpp"

namespace eventbus::delivery {

// Chunks are counted from 0 as they are lent. A settled place points at an event, or is Feed::end().
struct Place {
    std::uint64_t chunk = 0;
    std::uint32_t index = 0;
    auto operator<=>(const Place&) const = default;
};

class Feed {
 public:
    void lend(const Chunk& chunk, std::optional<BitRows> takers, std::optional<BitRows> settled);
    bool empty() const { return chunks_.empty(); }

    Place end() const { return {first_ + chunks_.size(), 0}; }
    // The event at `place`, which is moved over the ends of chunks; nullptr at the end.
    const Event* at(Place& place) const {
        while (place.chunk - first_ < chunks_.size()) {
            const auto& events = chunks_[place.chunk - first_].events;
            if (place.index < events.size()) return &events[place.index];
            ++place.chunk;
            place.index = 0;
        }
        return nullptr;
    }
    std::int64_t committed_after(Place place) const { return chunks_[place.chunk - first_].committed_after; }
    // What routes take of the chunk at `place`, by their slots; nullptr: each has to see for itself.
    const BitRows* takers(Place place) const {
        const auto& takers = chunks_[place.chunk - first_].takers;
        return takers ? &*takers : nullptr;
    }
    // The route in the slot had settled the event before it came to this stream.
    bool was_settled(Place place, std::uint32_t slot) const {
        const auto& settled = chunks_[place.chunk - first_].settled;
        return settled && settled->has(slot, place.index);
    }
    Position shown(Place place) const;
    Place place_of(Position position) const;  // of an event that is lent, or of the next chunk's begin

    // How much is lent from `place` on: events exactly, bytes by whole chunks.
    std::size_t events_from(Place place) const;
    std::size_t bytes_from(Place place) const;

    // Appends the chunks before `lowest` that were not appended earlier.
    void finish_before(Place lowest, StreamId stream, std::vector<Report::Finished>& finished);
    void release(ChunkId chunk);

 private:
    struct Lent {
        ChunkId id;
        std::span<const Event> events;
        std::int64_t committed_after;
        std::uint64_t events_before;
        std::uint64_t bytes_before;
        bool released;
        std::optional<BitRows> takers;
        std::optional<BitRows> settled;
    };
    std::deque<Lent> chunks_;
    std::uint64_t first_ = 0;     // the number of chunks_.front()
    std::uint64_t finished_ = 0;  // chunks before this number were reported
    std::uint64_t events_ = 0;    // lent ever
    std::uint64_t bytes_ = 0;
    Position end_shown_;
};

}  // namespace eventbus::delivery
