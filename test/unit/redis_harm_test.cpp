// What it is: the Redis driver against a server that means harm: what it holds, and what it tells.
// Who calls it: make -C test/unit redis.
// Never: needs a Redis.
#include <gtest/gtest.h>

#include <string>

#include "broker/redis/replies.hpp"
#include "redis_support.hpp"

using namespace eventbus;
using namespace eventbus::test;

namespace {

using broker::redis::Reply;
using broker::redis::ReplyReader;

// How many bytes of an endless answer are read until it is no Redis any more; 0: more than `most`.
std::size_t read_of(const std::string& begin, const std::string& again, bool expect_long, std::size_t most) {
    ReplyReader reader("source");
    reader.expect_long(expect_long);
    const auto take = [](const Reply&) { ADD_FAILURE() << "a reply without an end"; };
    std::string many;
    while (many.size() < 64 * 1024) many += again;
    std::size_t read = begin.size();
    bool fine = reader.read(begin, take);
    for (; fine && read <= most; read += many.size()) fine = reader.read(many, take);
    return fine ? 0 : read;
}

// What becomes of a login that is answered with these words.
std::string refused_with(const std::string& words, const std::string& user = "app:s3cr3t-pass@") {
    Server server([&](Socket& socket) {
        socket.receive();
        socket.send(words);
        socket.wait_for_end();
    });
    Pump pump("redis://" + user + server.host().shown());
    EXPECT_TRUE(pump.down());
    return pump.link().reason;
}

}  // namespace

TEST(RedisHarm, ArraysWithoutEnd) {
    constexpr std::size_t a_little = 128 * 1024;
    for (const bool expect_long : {false, true}) {
        EXPECT_NE(read_of("*2147483647\r\n", "*0\r\n", expect_long, a_little), 0u);
        EXPECT_NE(read_of("", "*1\r\n", expect_long, a_little), 0u);
        EXPECT_NE(read_of("*2147483647\r\n", "*1\r\n", expect_long, a_little), 0u);
    }
    // Elements that are not kept are counted with the reply that they belong to.
    EXPECT_NE(read_of("*2147483647\r\n", ":1\r\n", false, 2 << 20), 0u);
    EXPECT_NE(read_of("*2147483647\r\n", "$1\r\na\r\n", false, 2 << 20), 0u);
}

TEST(RedisHarm, LinesAndStringsWithoutEnd) {
    constexpr std::size_t a_little = 128 * 1024;
    for (const bool expect_long : {false, true})
        for (const char* mark : {"+", "-", ":", "$", "*"})
            EXPECT_NE(read_of(mark, "aaaa", expect_long, a_little), 0u) << mark;
    EXPECT_NE(read_of("*2\r\n+", "aaaa", true, a_little), 0u);
    EXPECT_NE(read_of("$1073741824\r\n", "aaaa", false, 2 << 20), 0u);
}

TEST(RedisHarm, LongRepliesThatEndAreRead) {
    ReplyReader reader("source");
    std::size_t replies = 0;
    const auto take = [&](const Reply&) { ++replies; };
    std::string many;
    while (many.size() < 4 << 20) many += "+OK\r\n";
    EXPECT_TRUE(reader.read(many, take));
    EXPECT_EQ(replies, many.size() / 5);
    EXPECT_TRUE(reader.read("$100000\r\n" + std::string(100'000, 'x') + "\r\n", take));
    reader.expect_long(true);
    EXPECT_TRUE(
        reader.read("$4000000\r\n" + std::string(4'000'000, 'x') + "\r\n+" + std::string(10'000, 'x') + "\r\n", take));
    EXPECT_EQ(replies, many.size() / 5 + 3);
}

TEST(RedisHarm, NoWordsOfAServerShowThePassword) {
    const std::string ours = "ERR unknown command";
    EXPECT_EQ(refused_with("-" + ours + " `AUTH`, with args beginning with: `app`, `s3cr3t-pass`, \r\n").find(ours),
              0u);
    for (const char* words : {
             "-ERR unknown command `AUTH`, with args beginning with: `app`, `s3cr3t-pass`, \r\n",
             "-ERR unknown command 'AUTH', with args beginning with: 'app' 's3cr3t-pass' \r\n",
             "-ERR proxy: AUTH app s3cr3t-pass\r\n",
             "-ERR proxy: AUTH app \"s3cr3t-p\r\n",
             "-ERR proxy: *3 $4 AUTH $3 app $11 s3cr3t-pass\r\n",
             "-WRONGPASS not YXBwOnMzY3IzdC1wYXNz\r\n",
             "-LOADING s3cr3t-pass\r\n",
         }) {
        const std::string reason = refused_with(words);
        EXPECT_EQ(reason.find("s3cr3t"), std::string::npos) << reason;
        EXPECT_EQ(reason.find("YXBwOnMz"), std::string::npos) << reason;
    }
    const std::string long_words(295, 'x');
    EXPECT_EQ(refused_with("-ERR " + long_words.substr(0, 290) + "s3cr3t-pass\r\n").find("s3cr3"), std::string::npos);
    EXPECT_EQ(refused_with("-NOAUTH a\x01"
                           "b\r\n"),
              "NOAUTH a?b");
}
