// What it is: unit tests of what is taken for JSON.
// Who calls it: make -C test/unit core.
// Never: needs a server.
#include <gtest/gtest.h>

#include <string>

#include "core/json.hpp"

namespace eventbus {
namespace {

TEST(Json, TakesValues) {
    for (const char* text : {"{}", "[]", "\"\"", "0", "-0", "1", "-12.50e+3", "1E9", "1e400", "true", "false", "null",
                             " \t\r\n{ \"a\" : [ 1 , {} , [ ] , \"b\" ] , \"c\" : null } \n", "[[],[[1]],{\"\":{}}]",
                             R"("\"\\\/\b\f\n\r\t\u00e4\uD83D é")", "[1,2]", R"({"a":1,"a":2})"})
        EXPECT_TRUE(is_json(text)) << text;
}

TEST(Json, RefusesOthers) {
    for (const char* text :
         {"",          " ",     "{",     "}",       "[",         "]",          "[1",          "[1,",
          "[1,]",      "[,1]",  "[1 2]", "{\"a\"}", "{\"a\":}",  "{\"a\":1,}", "{a:1}",       "{1:1}",
          "{\"a\" 1}", "[}",    "{]",    "[1}",     "{\"a\":1]", "01",         "+1",          "1.",
          ".5",        "1e",    "1e+",   "-",       "0x1",       "NaN",        "tru",         "trueX",
          "nul",       "'a'",   "\"a",   "\"\\\"",  "\"\\x\"",   "\"\\u12\"",  "\"\\u12g4\"", "\"\n\"",
          "1 2",       "{} {}", "[],",   "words",   "\"a\"b",    "//",         "[1]]",        "{\"a\":1}}"})
        EXPECT_FALSE(is_json(text)) << text;
    EXPECT_FALSE(is_json(std::string_view("\"a\0\"", 4)));
}

TEST(Json, EveryBeginningOfAnObjectIsNone) {
    const std::string text = R"({"a":[1,{"b":"c\u0020"},true],"d":-1.5e1})";
    for (std::size_t length = 0; length < text.size(); ++length)
        EXPECT_FALSE(is_json(std::string_view(text).substr(0, length))) << length;
    EXPECT_TRUE(is_json(text));
}

TEST(Json, IsNotDeep) {
    const auto nested = [](std::size_t depth, char open, char close) {
        return std::string(depth, open) + std::string(depth, close);
    };
    EXPECT_TRUE(is_json(nested(deepest_json, '[', ']')));
    EXPECT_FALSE(is_json(nested(deepest_json + 1, '[', ']')));
    EXPECT_FALSE(is_json(std::string(10'000'000, '[')));
    std::string objects = "1";
    for (int i = 0; i < 999; ++i) objects = "{\"a\":" + objects + "}";
    EXPECT_TRUE(is_json(objects));
    EXPECT_TRUE(is_json("{\"a\":" + objects + "}"));
    EXPECT_FALSE(is_json("[{\"a\":" + objects + "}]"));
}

TEST(Json, KnowsObjects) {
    EXPECT_TRUE(is_json_object(" {\"a\":1} "));
    for (const char* text : {"", " ", "[]", "1", "{", "{}{}", "[{}]"}) EXPECT_FALSE(is_json_object(text)) << text;
}

}  // namespace
}  // namespace eventbus
