// What it is: the book-keeping of lent chunks.
// Who calls it: the dispatcher.
// Never: touches an event after its chunk was released.
#include "delivery/feed.hpp"

#include <algorithm>

namespace eventbus::delivery {

namespace {

constexpr std::size_t bytes_around_an_event = 100;

std::size_t bytes_of(const Event& event) {
    return event.topic.size() + (event.key ? event.key->size() : 0) + event.payload.size() + event.content_type.size() +
           event.headers.size() + bytes_around_an_event;
}

}  // namespace

void Feed::lend(const Chunk& chunk, std::optional<BitRows> takers, std::optional<BitRows> settled) {
    chunks_.push_back(
        {chunk.id, chunk.events, chunk.committed_after, events_, bytes_, false, std::move(takers), std::move(settled)});
    events_ += chunk.events.size();
    for (const auto& event : chunk.events) bytes_ += bytes_of(event);
    end_shown_ = {chunk.id, static_cast<std::uint32_t>(chunk.events.size())};
}

Position Feed::shown(Place place) const {
    if (place >= end()) return end_shown_;
    return {chunks_[place.chunk - first_].id, place.index};
}

Place Feed::place_of(Position position) const {
    const auto found = std::partition_point(chunks_.begin(), chunks_.end(),
                                            [&](const Lent& lent) { return lent.id < position.chunk; });
    return {first_ + static_cast<std::uint64_t>(found - chunks_.begin()), position.index};
}

std::size_t Feed::events_from(Place place) const {
    return place >= end() ? 0 : events_ - chunks_[place.chunk - first_].events_before - place.index;
}

std::size_t Feed::bytes_from(Place place) const {
    return place >= end() ? 0 : bytes_ - chunks_[place.chunk - first_].bytes_before;
}

void Feed::finish_before(Place lowest, StreamId stream, std::vector<Report::Finished>& finished) {
    for (; finished_ < lowest.chunk; ++finished_) finished.push_back({stream, chunks_[finished_ - first_].id});
}

void Feed::release(ChunkId chunk) {
    const auto reported = chunks_.begin() + static_cast<std::ptrdiff_t>(finished_ - first_);
    const auto found = std::find_if(chunks_.begin(), reported, [&](const Lent& lent) { return lent.id == chunk; });
    if (found == reported) return;
    found->released = true;
    for (; !chunks_.empty() && chunks_.front().released; ++first_) chunks_.pop_front();
}

}  // namespace eventbus::delivery
