// What it is: one stream as delivery sees it: what is lent on it, who takes it, and how far all of them are.
// Who calls it: the dispatcher.
// Never: asks each of many routes whether it wants an event: that is found out once, when the event is lent.
#pragma once

#include <memory>
#include <vector>

#include "delivery/context.hpp"
#include "delivery/feed.hpp"
#include "delivery/route_queue.hpp"
#include "router/topic_index.hpp"

namespace eventbus::delivery {

class LentStream {
 public:
    Feed& feed() { return feed_; }
    const Feed& feed() const { return feed_; }
    // Those on it, removed ones with open tickets included.
    const std::vector<RouteQueue*>& queues() const { return queues_; }
    void add(RouteQueue* queue);
    void remove(RouteQueue* queue);
    void filters_changed() { index_.reset(); }
    // The host has no room for more of it now, however hungry it is.
    void close(bool closed) { closed_ = closed; }
    bool is_closed() const { return closed_; }

    // Returns how many tickets may come of it at most.
    std::size_t lend(const Chunk& chunk);
    // The place that all of them have passed.
    Place lowest(const Context& context) const;

 private:
    std::optional<BitRows> takers_of(const Chunk& chunk);
    std::optional<BitRows> settled_of(const Chunk& chunk) const;

    Feed feed_;
    std::vector<RouteQueue*> queues_;
    std::unique_ptr<router::TopicIndex> index_;  // of those that do not take everything
    bool closed_ = false;
    mutable Place lowest_;
    mutable std::uint64_t lowest_at_ = 0;  // what Context::moves was then; 0: not known
};

}  // namespace eventbus::delivery
