// What it is: tests of the tree of many routes' patterns, with TopicFilter as the reference.
// Who calls it: make -C test/unit router.
// Never: needs a server.
#include <gtest/gtest.h>

#include <chrono>
#include <iostream>
#include <random>

#include "router/topic_index.hpp"

namespace eventbus::router {
namespace {

std::vector<std::uint32_t> found(TopicIndex& index, std::string_view topic) {
    const auto numbers = index.matches(topic);
    return {numbers.begin(), numbers.end()};
}

TEST(TopicIndex, FindsEachRouteOnce) {
    TopicIndex index;
    index.add(TopicFilter("#"), 7);
    index.add(TopicFilter("shop.#, shop.order.*, *.order.#"), 3);
    index.add(TopicFilter("shop.order.created"), 5);
    index.add(TopicFilter("bank.#"), 1);
    EXPECT_EQ(found(index, "shop.order.created"), (std::vector<std::uint32_t>{3, 5, 7}));
    EXPECT_EQ(found(index, "shop"), (std::vector<std::uint32_t>{3, 7}));
    EXPECT_EQ(found(index, "bank"), (std::vector<std::uint32_t>{1, 7}));
    EXPECT_EQ(found(index, "x"), (std::vector<std::uint32_t>{7}));
}

TEST(TopicIndex, OneThatIsAddedLaterIsFoundForTheSameTopic) {
    TopicIndex index;
    index.add(TopicFilter("a.b"), 1);
    EXPECT_EQ(found(index, "a.b").size(), 1U);
    index.add(TopicFilter("a.*"), 2);
    EXPECT_EQ(found(index, "a.b").size(), 2U);
}

TEST(TopicIndex, IsEmptyWhereNothingWasAdded) {
    TopicIndex index;
    EXPECT_TRUE(found(index, "a").empty());
    EXPECT_TRUE(found(index, "").empty());
}

// Few words, so that much matches; "#" in all places, in rows, several patterns a route.
TEST(TopicIndex, AgreesWithTopicFilter) {
    std::mt19937 random(20261128);
    const auto upto = [&](std::size_t most) { return std::uniform_int_distribution<std::size_t>(0, most)(random); };
    const std::vector<std::string> words = {"a", "b", "c", "größe", "*", "#", "#"};
    const auto made = [&](std::size_t kinds) {
        std::string text;
        for (auto left = upto(5) + 1; left > 0; --left) text += (text.empty() ? "" : ".") + words[upto(kinds - 1)];
        return text;
    };
    for (int round = 0; round < 300; ++round) {
        std::vector<TopicFilter> filters;
        TopicIndex index;
        for (auto routes = upto(40); routes > 0; --routes) {
            auto patterns = made(words.size());
            for (auto more = upto(2); more > 0; --more) patterns += ", " + made(words.size());
            filters.emplace_back(patterns);
            index.add(filters.back(), static_cast<std::uint32_t>(filters.size()));
        }
        for (int i = 0; i < 200; ++i) {
            const auto topic = made(4);
            std::vector<std::uint32_t> expected;
            for (std::size_t route = 0; route < filters.size(); ++route) {
                if (filters[route].matches(topic)) expected.push_back(static_cast<std::uint32_t>(route + 1));
            }
            ASSERT_EQ(found(index, topic), expected) << topic;
        }
    }
}

// The promise is about time as well: many "#" must not multiply.
TEST(TopicIndex, ManyHashesStayCheap) {
    std::string pattern;
    std::string topic;
    for (int i = 0; i < 60; ++i) pattern += "#.a.";
    for (int i = 0; i < 120; ++i) topic += i == 0 ? "a" : ".a";
    TopicIndex index;
    for (std::uint32_t route = 0; route < 50; ++route) index.add(TopicFilter(pattern + "#"), route);
    EXPECT_EQ(found(index, topic).size(), 50U);
    EXPECT_TRUE(found(index, topic.substr(0, 9)).empty());
}

// Run with --gtest_also_run_disabled_tests, built without sanitizers: the loop over all filters against the tree.
TEST(TopicIndex, DISABLED_Measured) {
    using Clock = std::chrono::steady_clock;
    std::vector<TopicFilter> filters;
    TopicIndex index;
    for (int i = 0; i < 500; ++i) {
        filters.emplace_back(i < 10 ? "#" : "x." + std::to_string(i) + ".#");
        index.add(filters.back(), static_cast<std::uint32_t>(i));
    }
    constexpr int events = 50000;
    std::size_t by_loop = 0;
    std::size_t by_tree = 0;
    const auto topic = [](int i) { return "x." + std::to_string(10 + i % 490) + ".created"; };
    const auto begun = Clock::now();
    for (int i = 0; i < events; ++i) {
        for (const auto& filter : filters) by_loop += filter.matches(topic(i)) ? 1 : 0;
    }
    const auto between = Clock::now();
    for (int i = 0; i < events; ++i) by_tree += index.matches(topic(i)).size();
    const auto ended = Clock::now();
    EXPECT_EQ(by_loop, by_tree);
    const auto ns = [](Clock::duration time) { return static_cast<double>(time.count()) / events; };
    std::cout << "500 filters in a loop " << ns(between - begun) << " ns an event, the tree " << ns(ended - between)
              << " ns\n";
}

}  // namespace
}  // namespace eventbus::router
