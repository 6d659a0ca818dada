// What it is: tests of what needs no connection: the module's face, its check, commands' bytes, errors' meanings.
// Who calls it: make -C test/unit redis.
// Never: opens a socket.
#include <gtest/gtest.h>

#include <string>

#include "broker/redis/commands.hpp"
#include "broker/redis/redis_driver.hpp"
#include "redis_support.hpp"

using namespace eventbus;
using namespace eventbus::broker;
using namespace eventbus::test;

namespace {

std::string refusal(const std::string& url, const std::string& options = "{}") {
    BrokerSettings settings = redis_settings(url);
    try {
        take_options(settings, options);
    } catch (const BadInput& error) {
        EXPECT_FALSE(error.hint().empty());
        EXPECT_EQ((error.message() + error.detail() + error.hint()).find("hunter2"), std::string::npos);
        return error.message();
    }
    return "";
}

}  // namespace

TEST(RedisModule, Face) {
    const Module* module = eventbus_driver_module();
    EXPECT_EQ(module->build, this_build());
    EXPECT_STREQ(module->protocol, "redis");
    EXPECT_EQ(std::string(module->kinds[2]), "stream");
    EXPECT_EQ(module->kinds.size(), 4u);
    ASSERT_EQ(module->route_options.size(), 1u);
    EXPECT_EQ(module->route_options[0], "maxlen");
}

TEST(RedisModule, CheckTakesWhatMakesSense) {
    for (const char* url :
         {"redis://h", "redis://h/", "redis://h/3", "redis://h?db=3", "redis://a,b:1/0", "rediss://u:p@h/1",
          "redis:///run/r.sock?db=2", "redis://%2Frun%2Fr.sock/2", "redis://:p@h", "redis://u:@h"})
        EXPECT_EQ(refusal(url), "") << url;
    EXPECT_EQ(refusal("rediss://h", R"({"ca_file":"/c","cert_file":"/c","key_file":"/k","verify":false})"), "");
    EXPECT_EQ(refusal("redis://u@h", R"({"password_file":"/p"})"), "");
}

TEST(RedisModule, CheckRefusesTheRest) {
    for (const char* url : {"redis://u:hunter2@h/x", "redis://u:hunter2@h/-1", "redis://u:hunter2@h/1/2",
                            "redis://h?db=", "redis://h?db=1x", "redis://h/99999999999", "redis://h/1000001"})
        EXPECT_EQ(refusal(url), "invalid database in a Redis URL") << url;
    EXPECT_EQ(refusal("redis://h/1?db=2"), "Redis URL names two databases");
    EXPECT_EQ(refusal("redis://h?hunter2=1"), "unknown parameter in a Redis URL");
    EXPECT_EQ(refusal("redis://hunter2@h"), "Redis URL has a user without a password");
    EXPECT_EQ(refusal("rediss:///run/r.sock"), "TLS over a unix socket makes no sense");
    EXPECT_EQ(refusal("redis://h", R"({"ca_file":"/c"})"), "broker option \"ca_file\" needs TLS");
    EXPECT_EQ(refusal("redis://h", R"({"crl_file":"/c"})"), "broker option \"crl_file\" needs TLS");
    EXPECT_EQ(refusal("redis://h", R"({"tls_min_version":"1.2"})"), "broker option \"tls_min_version\" needs TLS");
    EXPECT_EQ(refusal("redis://h", R"({"verify":false})"), "broker option \"verify\" needs TLS");
    EXPECT_EQ(refusal("redis://h", R"({"cert_file":"/c","key_file":"/k"})"), "broker option \"cert_file\" needs TLS");
    EXPECT_EQ(refusal("rediss://h", R"({"cert_file":"/c"})"),
              "broker options \"cert_file\" and \"key_file\" belong together");
    EXPECT_EQ(refusal("rediss://h", R"({"key_file":"/c"})"),
              "broker options \"cert_file\" and \"key_file\" belong together");
}

TEST(RedisModule, ReadsRoutes) {
    const Addressing capped = redis_addressing("stream", 1000000);
    EXPECT_EQ(redis::route_of(capped).maxlen, 1000000);
    EXPECT_NO_THROW(redis_addressing("list", 0));
    EXPECT_THROW(redis_addressing("list", 5), BadInput);
    EXPECT_THROW(redis_addressing("stream", -1), BadInput);
}

TEST(RedisCommands, Bytes) {
    Event event = event_of(42, "{}");
    Addressing addressing = redis_addressing("stream");
    const Outgoing outgoing{1, 1, &event, &addressing, "s", {}};
    std::string outbox = "before";
    redis::write_stream_add(outbox, outgoing, "src");
    const std::string tail =
        "$2\r\nid\r\n$2\r\n42\r\n$5\r\ntopic\r\n$18\r\nshop.order.created\r\n$7\r\npayload\r\n$2\r\n{}\r\n"
        "$12\r\ncontent_type\r\n$16\r\napplication/json\r\n$4\r\ntime\r\n$27\r\n2026-11-20T04:53:00.123456Z\r\n"
        "$6\r\nsource\r\n$3\r\nsrc\r\n";
    EXPECT_EQ(outbox, "before*15\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n" + tail);

    outbox.clear();
    event.key = "";
    event.headers = R"({"a":1})";
    addressing = redis_addressing("stream", 1000);
    redis::write_stream_add(outbox, outgoing, "src");
    EXPECT_EQ(
        outbox.find("*22\r\n$4\r\nXADD\r\n$1\r\ns\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n$4\r\n1000\r\n$1\r\n*\r\n$2\r\nid"),
        0u);
    EXPECT_NE(outbox.find("created\r\n$3\r\nkey\r\n$0\r\n\r\n$7\r\npayload"), std::string::npos);
    EXPECT_TRUE(outbox.ends_with("$3\r\nsrc\r\n$7\r\nheaders\r\n$7\r\n{\"a\":1}\r\n"));

    outbox.clear();
    redis::write_push(outbox, outgoing);
    EXPECT_EQ(outbox, "*3\r\n$5\r\nRPUSH\r\n$1\r\ns\r\n$2\r\n{}\r\n");
    outbox.clear();
    redis::write_publish(outbox, outgoing);
    EXPECT_EQ(outbox, "*3\r\n$7\r\nPUBLISH\r\n$1\r\ns\r\n$2\r\n{}\r\n");
    outbox.clear();
    redis::write_command(outbox, {"AUTH", "", "p"});
    EXPECT_EQ(outbox, "*3\r\n$4\r\nAUTH\r\n$0\r\n\r\n$1\r\np\r\n");
}

TEST(RedisCommands, RoomIsEnoughForTheLongestNumbers) {
    Event event = event_of(INT64_MIN, "");
    event.key = "";
    event.headers = "x";
    event.published_at = INT64_MAX;
    const Addressing addressing = redis_addressing("stream", INT64_MAX);
    const Outgoing outgoing{1, 1, &event, &addressing, "", {}};
    std::string outbox;
    redis::write_stream_add(outbox, outgoing, "");
    EXPECT_LT(outbox.size(), redis::command_room(outgoing, ""));
    EXPECT_NE(outbox.find("$20\r\n-9223372036854775808\r\n"), std::string::npos);
    EXPECT_NE(outbox.find("$19\r\n9223372036854775807\r\n"), std::string::npos);
}

TEST(RedisReplies, Remedies) {
    using redis::remedy_of;
    for (const char* words :
         {"OOM command not allowed", "LOADING Redis is loading", "READONLY You can't", "BUSY Redis is", "TRYAGAIN x",
          "CLUSTERDOWN x", "MASTERDOWN x", "NOREPLICAS x", "MISCONF x"})
        EXPECT_EQ(remedy_of(words), Remedy::retry) << words;
    for (const char* words :
         {"NOAUTH x", "NOPERM x", "WRONGPASS x", "MOVED 1 h:1", "ASK 1 h:1", "ERR unknown command 'XADD'",
          "ERR unsupported command 'xadd'", "unsupported command 'xadd'", "ERR Unknown or unsupported command 'xadd'",
          "ERR command 'XADD' is not allowed", "ERR command not supported", "ERR unknown cmd",
          "NOPERM this user has no permissions to run the 'xadd' command",
          "NOPERM User keyholder has no permissions to run the 'publish' command",
          "NOPERM this user has no permissions to run the 'xadd' command or its subcommand",
          "ERR Only HELLO messages are accepted by Sentinel instances."})
        EXPECT_EQ(remedy_of(words), Remedy::fix_settings) << words;
    for (const char* words : {"NOPERM this user has no permissions to access one of the keys used as arguments",
                              "NOPERM this user has no permissions to access one of the channels used as arguments",
                              "NOPERM No permissions to access a key", "NOPERM No permissions to access a channel"})
        EXPECT_EQ(remedy_of(words), Remedy::forbidden) << words;
    for (const char* words :
         {"WRONGTYPE x", "ERR Protocol error: invalid bulk length", "ERR string exceeds maximum allowed size (512MB)",
          "ERR Element too large", "ERR Elements are too large to be stored"})
        EXPECT_EQ(remedy_of(words), Remedy::park) << words;
    for (const char* words : {"ERR Connection refused", "ERR no upstream host", "upstream failure", "ERR anything",
                              "ERR unsupported thing", "BUSYGROUP x", "", "ERR", "WRONGTYPEX x"})
        EXPECT_EQ(remedy_of(words), Remedy::unclear) << words;
}

TEST(RedisReplies, NoArgumentOfACommandIsShown) {
    using redis::shown_words;
    EXPECT_EQ(shown_words("OOM command not allowed"), "OOM command not allowed");
    for (const char* words : {"ERR unknown command 'XADD', with args beginning with: 's' '*' 'payload' 'secret' ",
                              "ERR unknown command `AUTH`, with args beginning with: `user`, `secret`, "}) {
        const auto shown = shown_words(words);
        EXPECT_EQ(shown.find("secret"), std::string::npos) << shown;
        EXPECT_EQ(shown.find("ERR unknown command"), 0U) << shown;
        EXPECT_NE(shown.find("a Redis Sentinel, or a proxy"), std::string::npos) << shown;
    }
    for (const char* words : {"ERR unsupported command 'xadd'", "command 'XADD' is not allowed"})
        EXPECT_NE(shown_words(words).find("of Redis' commands only, is not supported"), std::string::npos) << words;
    EXPECT_NE(shown_words("ERR Only HELLO messages are accepted by Sentinel instances.").find("Sentinel is not supp"),
              std::string::npos);
    EXPECT_LE(shown_words(std::string(100000, 'x')).size(), 300U);
}

TEST(RedisReplies, OpenCommandsWrapAndGrow) {
    redis::OpenCommands open;
    std::uint64_t in = 0, out = 0;
    for (int round = 0; round < 200; ++round) {
        for (int i = 0; i < 100 + round; ++i) open.push({in++, 1, redis::OpenCommands::What::list, nullptr});
        for (int i = 0; i < 90; ++i) {
            ASSERT_EQ(open.front().ticket, out++);
            open.pop();
        }
    }
    EXPECT_EQ(open.size(), in - out);
    for (; !open.empty(); open.pop()) ASSERT_EQ(open.front().ticket, out++);
    EXPECT_EQ(in, out);
}
