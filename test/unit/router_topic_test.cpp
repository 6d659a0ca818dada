// What it is: tests of topics and patterns.
// Who calls it: make -C test/unit router.
// Never: needs a server.
#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "core/bad_input.hpp"
#include "core/topic.hpp"
#include "router/route.hpp"

namespace eventbus::router {
namespace {

bool matches(std::string_view patterns, std::string_view topic) {
    return TopicFilter(patterns).matches(topic);
}

std::string detail_of(std::string_view patterns) {
    try {
        TopicFilter filter(patterns);
    } catch (const BadInput& e) {
        EXPECT_NE(e.message().find("invalid topic pattern"), std::string::npos);
        EXPECT_NE(e.hint().find("separated by commas"), std::string::npos);
        return e.detail();
    }
    return "accepted";
}

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> words;
    std::size_t from = 0;
    for (std::size_t end; (end = text.find('.', from)) != std::string::npos; from = end + 1) {
        words.push_back(text.substr(from, end - from));
    }
    words.push_back(text.substr(from));
    return words;
}

bool reference(const std::vector<std::string>& p, std::size_t i, const std::vector<std::string>& t, std::size_t j) {
    if (i == p.size()) return j == t.size();
    if (p[i] == "#") {
        for (std::size_t k = j; k <= t.size(); ++k) {
            if (reference(p, i + 1, t, k)) return true;
        }
        return false;
    }
    return j < t.size() && (p[i] == "*" || p[i] == t[j]) && reference(p, i + 1, t, j + 1);
}

TEST(Topic, Valid) {
    for (const std::string topic : {"a", "shop.order.created", "a b.c", "größe.neu", "a,b"}) {
        EXPECT_NO_THROW(check_topic(topic)) << topic;
    }
    EXPECT_NO_THROW(check_topic(std::string(255, 'x')));
}

TEST(Topic, Invalid) {
    for (const std::string topic : {"", ".", "a.", ".a", "a..b", "a.*", "#", "a+b", "a\nb", "a\x7f", "a\xc2\x85z"}) {
        EXPECT_THROW(check_topic(topic), BadInput) << topic;
    }
    EXPECT_THROW(check_topic(std::string(256, 'x')), BadInput);
    EXPECT_THROW(check_topic(std::string_view("a\0b", 3)), BadInput);
}

TEST(TopicFilter, Words) {
    EXPECT_TRUE(matches("shop.order", "shop.order"));
    EXPECT_FALSE(matches("shop.order", "shop.orders"));
    EXPECT_FALSE(matches("shop.order", "shop"));
    EXPECT_TRUE(matches("shop.*", "shop.order"));
    EXPECT_FALSE(matches("shop.*", "shop"));
    EXPECT_FALSE(matches("shop.*", "shop.order.created"));
    EXPECT_TRUE(matches("*.order.*", "shop.order.created"));
}

TEST(TopicFilter, HashIsZeroOrMore) {
    for (const auto* topic : {"shop", "shop.order", "shop.order.created"}) EXPECT_TRUE(matches("shop.#", topic));
    EXPECT_FALSE(matches("shop.#", "shopping.order"));
    for (const auto* topic : {"created", "order.created", "shop.order.created"}) {
        EXPECT_TRUE(matches("#.created", topic));
    }
    EXPECT_FALSE(matches("#.created", "created.order"));
    EXPECT_TRUE(matches("a.#.b.#.c", "a.b.c"));
    EXPECT_TRUE(matches("a.#.b.#.c", "a.x.b.b.y.c"));
    EXPECT_FALSE(matches("a.#.b.#.c", "a.x.y.c"));
    EXPECT_TRUE(matches("#.*", "a"));
    EXPECT_TRUE(matches("#.*.#", "a"));
    EXPECT_FALSE(matches("*.#.*", "a"));
    EXPECT_TRUE(TopicFilter("#").matches_everything());
    EXPECT_TRUE(TopicFilter("a, #.#").matches_everything());
    EXPECT_FALSE(TopicFilter("#.*").matches_everything());
}

TEST(TopicFilter, Lists) {
    EXPECT_TRUE(matches("a.b, c.* ,d.#", "c.x"));
    EXPECT_TRUE(matches("a.b, c.* ,d.#", "a.b"));
    EXPECT_TRUE(matches("a.b,c.*,d.#", "d"));
    EXPECT_FALSE(matches("a.b,c.*,d.#", "e"));
}

TEST(TopicFilter, Errors) {
    EXPECT_EQ(detail_of(""), "A pattern must not be empty.");
    EXPECT_EQ(detail_of("a,"), "A pattern must not be empty.");
    EXPECT_EQ(detail_of(",a"), "A pattern must not be empty.");
    EXPECT_EQ(detail_of("a..b"), "A word is empty.");
    EXPECT_EQ(detail_of("a."), "A word is empty.");
    EXPECT_EQ(detail_of(".a"), "A word is empty.");
    EXPECT_EQ(detail_of("a.+"), "\"+\" is no wildcard here; \"*\" stands for one word.");
    EXPECT_EQ(detail_of("a.\x01"), "A pattern has no control characters.");
    EXPECT_EQ(detail_of("shop.ord*"), "\"ord*\": a wildcard is a whole word.");
    EXPECT_EQ(detail_of("shop.##"), "\"##\": a wildcard is a whole word.");
    EXPECT_EQ(detail_of(std::string(256, 'a')), "A pattern has at most 255 bytes.");
    EXPECT_EQ(detail_of(std::string(255, 'a')), "accepted");
}

TEST(TopicFilter, AgreesWithTheReference) {
    std::mt19937 dice(7);
    const char* const pattern_words[] = {"a", "b", "*", "#", "#"};
    const char* const topic_words[] = {"a", "b"};
    int hits = 0;
    for (int round = 0; round < 20000; ++round) {
        std::string pattern = pattern_words[dice() % 5];
        for (unsigned n = dice() % 6; n > 0; --n) pattern += std::string(".") + pattern_words[dice() % 5];
        std::string topic = topic_words[dice() % 2];
        for (unsigned n = dice() % 7; n > 0; --n) topic += std::string(".") + topic_words[dice() % 2];
        const bool expected = reference(split(pattern), 0, split(topic), 0);
        hits += expected;
        ASSERT_EQ(matches(pattern, topic), expected) << pattern << " ~ " << topic;
    }
    EXPECT_GT(hits, 1000);
}

// The rule stands twice: one says what is wrong, the other is for each event.
TEST(Topic, TheTwoRulesAgree) {
    std::mt19937 dice(1);
    const std::string letters("a.\xc3\xa4 *#+\n\x7f\x01\0-\xc2\x85", 16);
    int topics = 0;
    for (int round = 0; round < 20000; ++round) {
        std::string topic;
        for (unsigned n = dice() % 6; n > 0; --n) topic += letters[dice() % (round % 2 == 0 ? 4 : letters.size())];
        if (dice() % 50 == 0) topic.insert(0, 250 + dice() % 10, 'x');
        bool accepted = true;
        try {
            check_topic(topic);
        } catch (const BadInput&) {
            accepted = false;
        }
        ASSERT_EQ(is_topic(topic), accepted) << topic;
        topics += accepted;
    }
    EXPECT_GT(topics, 1000);
}

TEST(TopicFilter, ManyHashesDoNotExplode) {
    std::string pattern = "#";
    for (int i = 0; i < 60; ++i) pattern += ".a.#";
    pattern += ".b";
    std::string topic = "a";
    for (int i = 0; i < 126; ++i) topic += ".a";
    const TopicFilter filter(pattern);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 100; ++i) EXPECT_FALSE(filter.matches(topic));
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

}  // namespace
}  // namespace eventbus::router
