// What it is: tests of the Redis driver that only looks: what it asks, what it makes of the answers.
// Who calls it: make -C test/unit redis.
// Never: needs a Redis.
#include <mutex>

#include "look_support.hpp"
#include "redis_support.hpp"

using namespace eventbus;
using namespace eventbus::test;

namespace {

std::string bulk(const std::string& text) {
    return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

const std::string server_info = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n";
const std::string master = "# Replication\r\nrole:master\r\n";
const std::string memory = "# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n";
const std::string told = bulk(server_info) + bulk(master) + bulk(memory);

struct Heard {
    std::mutex mutex;
    std::string text;
};

// Lets the client in, and answers what it asks then at once: replies are matched in their order.
Server::Script answers(const std::string& words, Heard& heard) {
    return [&heard, words](Socket& socket) {
        const auto hear = [&](const std::string& mark) {
            for (std::string all;;) {
                const std::string more = socket.receive();
                {
                    const std::lock_guard lock(heard.mutex);
                    heard.text += more;
                }
                all += more;
                if (more.empty() || all.find(mark) != std::string::npos) return;
            }
        };
        hear("SETNAME");
        socket.send("+OK\r\n+PONG\r\n+OK\r\n");
        hear("memory");
        socket.send(words);
        socket.wait_for_end();
    };
}

std::string looked(const std::string& words, const std::string& kind = "", const std::string& name = "",
                   bool varies = false, std::string* said = nullptr) {
    Heard heard;
    std::string text;
    {
        Server server(answers(words, heard));
        text =
            shown(look(redis_settings("redis://app:hunter2-secret@" + server.host().shown()), kind, name, varies, 3s));
    }
    for (const char* command :
         {"XADD\r\n$1\r\nk\r\n$1\r\n*\r\n$2\r\nid", "\r\n$7\r\nPUBLISH\r\n$1\r\nk\r\n$1\r\nx\r\n*"})
        expect_no_part(heard.text, command);
    expect_no_part(text, "hunter2");
    if (said != nullptr) *said = heard.text;
    return text;
}

}  // namespace

TEST(RedisLook, SaysWhatTheServerIs) {
    std::string said;
    const std::string text = looked(told, "", "", false, &said);
    expect_part(text, "connect: yes 127.0.0.1:");
    expect_part(text, "login: yes as user \"app\", database 0");
    expect_part(text, "broker: yes Redis 7.0.15, standalone, role master, no limit of memory");
    expect_part(said, "SETNAME\r\n$16\r\npg_eventbus-test\r\n");
    expect_no_part(said, "TYPE");
    expect_part(looked(bulk("# S\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n") +
                       bulk(master) + bulk("# M\r\nmaxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n")),
                "broker: yes Valkey 8.0.1, role master, at most 100 bytes of memory, policy allkeys-lru");
    expect_part(looked(bulk(server_info) + bulk("# R\r\nrole:slave\r\nslave_read_only:1\r\n") + bulk(memory)),
                "broker: no Redis 7.0.15, standalone, a replica");
    const std::string no = "-NOPERM this user has no permissions to run the 'info' command\r\n";
    expect_part(looked(no + no + no), "broker: unknown the server does not tell what it is: NOPERM this user");
}

TEST(RedisLook, SaysWhatAKeyHolds) {
    std::string said;
    expect_part(looked(told + "+none\r\n+OK\r\n", "stream", "k", false, &said),
                "destination: yes stream 'k' is not there yet, the first message makes it | "
                "permission: yes user 'app' may XADD to it");
    expect_part(said, "$4\r\nTYPE\r\n$1\r\nk\r\n");
    expect_part(said, "$3\r\nACL\r\n$6\r\nDRYRUN\r\n$3\r\napp\r\n$4\r\nXADD\r\n$1\r\nk\r\n");
    expect_part(looked(told + "+list\r\n+OK\r\n", "list", "k"), "destination: yes list 'k' is there");
    expect_part(looked(told + "+list\r\n+OK\r\n", "stream", "k"), "destination: no the key 'k' holds");
    expect_part(looked(told + "*2\r\n$1\r\nk\r\n:3\r\n+OK\r\n", "channel", "k"), "subscribers by its name now: 3");
    expect_part(looked(told + "*0\r\n+OK\r\n", "topic", "k"), "destination: yes channel 'k'");
    expect_part(looked(told + "-MOVED 1 10.0.0.1:6379\r\n+OK\r\n", "list", "k"), "destination: no MOVED 1");
    expect_part(looked(told + "+none\r\n" + bulk("User app has no permissions to access the 'k' key"), "list", "k"),
                "permission: no User app has no permissions to access the 'k' key");
    expect_part(
        looked(told + "+none\r\n-ERR Unknown subcommand or wrong number of arguments for 'DRYRUN'\r\n", "list", "k"),
        "permission: unknown the server does not tell before a message is sent whether user 'app' may RPUSH to it");
    expect_part(looked(told, "stream", "{topic}", true),
                "destination: unknown its name is made of each event: stream:{topic}");
}

TEST(RedisLook, HarmIsBoundAndNamesTheStep) {
    expect_part(looked(bulk(server_info)), "broker: no no answer within 3 s");
    expect_part(looked(told + "+none\r\n", "list", "k"), "| permission: no no answer within 3 s");
    expect_part(looked(told + "+OK\r\n"), "broker: yes Redis 7.0.15");
    expect_part(looked("HTTP\r\n"), "broker: no the server sent something that is not Redis protocol");
    const std::string much(300'000, 'x');
    EXPECT_LT(looked(bulk("# S\r\nredis_version:" + much + "\r\n") + bulk(much) + bulk("\nmaxmemory:" + much + "\r\n") +
                         "+" + much.substr(0, 9000) + "\r\n" + bulk(much),
                     "list", "k")
                  .size(),
              3000u);
    expect_part(looked(bulk("# S\r\nredis_version:hunter2-secret\r\n") + bulk(master) + bulk(memory)), "Redis ***");
}
