// Never: takes longer than the words of the topic times the places that its words so far may have led to.
#include "router/topic_index.hpp"

#include <algorithm>
#include <utility>

namespace eventbus::router {

TopicIndex::TopicIndex() : nodes_(1) {}

std::uint32_t TopicIndex::child(std::uint32_t node, std::string_view word) {
    const auto make = [&] {
        nodes_.emplace_back();
        return static_cast<std::uint32_t>(nodes_.size() - 1);
    };
    if (word == "#") {
        // "#.#" is "#".
        if (nodes_[node].stays) return node;
        if (nodes_[node].any == none) {
            const auto made = make();
            nodes_[made].stays = true;
            nodes_[node].any = made;
        }
        return nodes_[node].any;
    }
    if (word == "*") {
        if (nodes_[node].one == none) {
            const auto made = make();
            nodes_[node].one = made;
        }
        return nodes_[node].one;
    }
    if (const auto found = nodes_[node].words.find(word); found != nodes_[node].words.end()) return found->second;
    const auto made = make();
    nodes_[node].words.emplace(word, made);
    return made;
}

void TopicIndex::add(const TopicFilter& filter, std::uint32_t number) {
    topic_.clear();
    for (std::size_t i = 0; i < filter.size(); ++i) {
        std::uint32_t node = 0;
        const auto pattern = filter.pattern(i);
        for (std::size_t from = 0; from <= pattern.size();) {
            const auto end = std::min(pattern.find('.', from), pattern.size());
            node = child(node, pattern.substr(from, end - from));
            from = end + 1;
        }
        nodes_[node].numbers.push_back(number);
    }
}

// "#" may stand for no word at all.
void TopicIndex::enter(std::uint32_t node) {
    for (;;) {
        auto& entered = nodes_[node];
        if (entered.seen == step_) return;
        entered.seen = step_;
        next_.push_back(node);
        if (entered.any == none) return;
        node = entered.any;
    }
}

std::span<const std::uint32_t> TopicIndex::matches(std::string_view topic) {
    if (topic == topic_ && !topic.empty()) return found_;
    topic_ = topic;
    next_.clear();
    ++step_;
    enter(0);
    for (std::size_t from = 0; from <= topic.size() && !next_.empty();) {
        const auto end = std::min(topic.find('.', from), topic.size());
        const auto word = topic.substr(from, end - from);
        std::swap(here_, next_);
        next_.clear();
        ++step_;
        for (const auto at : here_) {
            if (nodes_[at].stays) enter(at);
            if (nodes_[at].one != none) enter(nodes_[at].one);
            if (nodes_[at].words.empty()) continue;
            if (const auto found = nodes_[at].words.find(word); found != nodes_[at].words.end()) enter(found->second);
        }
        from = end + 1;
    }
    found_.clear();
    for (const auto at : next_) found_.insert(found_.end(), nodes_[at].numbers.begin(), nodes_[at].numbers.end());
    std::sort(found_.begin(), found_.end());
    found_.erase(std::unique(found_.begin(), found_.end()), found_.end());
    return found_;
}

}  // namespace eventbus::router
