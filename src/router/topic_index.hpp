// What it is: the patterns of many routes in one tree of words: which of them match a topic, found in one walk.
// Who calls it: delivery and the sender, where many routes read the same events.
// Never: decides otherwise than TopicFilter::matches would for each of the routes.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "router/route.hpp"

namespace eventbus::router {

class TopicIndex {
 public:
    TopicIndex();
    // `number` is the caller's name of the route.
    void add(const TopicFilter& filter, std::uint32_t number);
    // The numbers of those that match, rising, each once; valid until the next call.
    std::span<const std::uint32_t> matches(std::string_view topic);

 private:
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view word) const { return std::hash<std::string_view>{}(word); }
    };
    static constexpr std::uint32_t none = 0;  // the root is nobody's child
    struct Node {
        std::unordered_map<std::string, std::uint32_t, Hash, std::equal_to<>> words;
        std::uint32_t one = none;            // behind "*"
        std::uint32_t any = none;            // behind "#"
        bool stays = false;                  // is behind "#": takes further words
        std::vector<std::uint32_t> numbers;  // of those that end here
        std::uint64_t seen = 0;              // the step that has come here last
    };
    std::uint32_t child(std::uint32_t node, std::string_view word);
    void enter(std::uint32_t node);

    std::vector<Node> nodes_;
    std::uint64_t step_ = 0;
    std::vector<std::uint32_t> here_, next_;  // where the words so far may have led
    std::string topic_;                       // of the last call; events of a topic often come together
    std::vector<std::uint32_t> found_;
};

}  // namespace eventbus::router
