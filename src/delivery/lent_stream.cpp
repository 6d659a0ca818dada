#include "delivery/lent_stream.hpp"

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace eventbus::delivery {

namespace {

constexpr std::ptrdiff_t few = 3;  // so many routes are asked one by one as quickly

bool is_choosy(const RouteQueue* queue) {
    return queue->filter() != nullptr && !queue->filter()->matches_everything();
}

}  // namespace

void LentStream::add(RouteQueue* queue) {
    queues_.push_back(queue);
    index_.reset();
    lowest_at_ = 0;
}

void LentStream::remove(RouteQueue* queue) {
    std::erase(queues_, queue);
    index_.reset();
    lowest_at_ = 0;
}

std::optional<BitRows> LentStream::takers_of(const Chunk& chunk) {
    if (!index_) {
        if (std::count_if(queues_.begin(), queues_.end(), is_choosy) <= few) return std::nullopt;
        index_ = std::make_unique<router::TopicIndex>();
        for (const auto* queue : queues_) {
            if (is_choosy(queue)) index_->add(*queue->filter(), queue->slot());
        }
    }
    BitRows takers(chunk.events.size());
    for (std::size_t i = 0; i < chunk.events.size(); ++i) {
        const auto topic = chunk.events[i].topic;
        if (topic.empty()) {  // not known: everybody's
            for (const auto* queue : queues_) takers.set(queue->slot(), i);
            continue;
        }
        for (const auto slot : index_->matches(topic)) takers.set(slot, i);
    }
    return takers;
}

std::optional<BitRows> LentStream::settled_of(const Chunk& chunk) const {
    if (chunk.settled.empty()) return std::nullopt;
    std::unordered_map<RouteId, std::uint32_t> slots;
    for (const auto* queue : queues_) {
        if (queue->filter() != nullptr) slots.emplace(queue->id(), queue->slot());
    }
    BitRows settled(chunk.events.size());
    for (const auto& [route, index] : chunk.settled) {
        if (const auto found = slots.find(route); found != slots.end()) settled.set(found->second, index);
    }
    return settled;
}

std::size_t LentStream::lend(const Chunk& chunk) {
    auto takers = takers_of(chunk);
    const auto asked = takers ? std::count_if(queues_.begin(), queues_.end(), is_choosy) : 0;
    const auto others = queues_.size() - static_cast<std::size_t>(asked);
    const auto tickets = others * chunk.events.size() + (takers ? takers->count() : 0);
    feed_.lend(chunk, std::move(takers), settled_of(chunk));
    lowest_at_ = 0;
    for (auto* queue : queues_) queue->lent();
    return tickets;
}

Place LentStream::lowest(const Context& context) const {
    if (lowest_at_ != context.moves) {
        lowest_ = feed_.end();
        for (const auto* queue : queues_) lowest_ = std::min(lowest_, queue->settled());
        lowest_at_ = context.moves;
    }
    return lowest_;
}

}  // namespace eventbus::delivery
