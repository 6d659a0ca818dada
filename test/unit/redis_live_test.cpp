// What it is: tests of the Redis driver against a private redis-server, looked into by hiredis.
// Who calls it: make -C test/unit redis.
// Never: touches a Redis that it did not start.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "redis_support.hpp"

using namespace eventbus;
using namespace eventbus::test;

namespace {

class RedisLive : public ::testing::Test {
 protected:
    RedisServer server;
};

}  // namespace

TEST_F(RedisLive, StreamFieldsAreExact) {
    Pump pump(server.url());
    ASSERT_TRUE(pump.up()) << pump.link().reason;
    Event event = event_of(42, R"({"total":9})");
    expect_delivered(pump.send("stream", "orders", event));
    event.key = "order-17";
    event.headers = R"({"trace":"x"})";
    event.id = EventId::of_log(43);
    expect_delivered(pump.send("stream", "orders", event));
    const std::string entries = server.ask({"XRANGE", "orders", "-", "+"});
    const std::string first =
        "[id|42|topic|shop.order.created|payload|{\"total\":9}|content_type|application/json|time|"
        "2026-11-20T04:53:00.123456Z|source|postgresql://unit/test]";
    const std::string second =
        "[id|43|topic|shop.order.created|key|order-17|payload|{\"total\":9}|content_type|"
        "application/json|time|2026-11-20T04:53:00.123456Z|source|postgresql://unit/test|headers|"
        "{\"trace\":\"x\"}]";
    EXPECT_NE(entries.find(first), std::string::npos) << entries;
    EXPECT_NE(entries.find(second), std::string::npos) << entries;
    EXPECT_LT(entries.find(first), entries.find(second));
    EXPECT_EQ(server.ask({"XLEN", "orders"}), "2");
    EXPECT_NE(server.ask({"CLIENT", "LIST"}).find("name=pg_eventbus"), std::string::npos);
}

TEST_F(RedisLive, ListsAndChannels) {
    Pump pump(server.url());
    ASSERT_TRUE(pump.up());
    for (int i = 0; i < 3; ++i) {
        const std::string payload = "p" + std::to_string(i);
        expect_delivered(pump.send("list", "queue", event_of(i, payload)));
    }
    EXPECT_EQ(server.ask({"LRANGE", "queue", "0", "-1"}), "[p0|p1|p2]");
    expect_delivered(pump.send("channel", "nobody", event_of(4, "x")));

    EXPECT_EQ(server.ask({"SUBSCRIBE", "here"}), "[subscribe|here|1]");
    expect_delivered(pump.send("topic", "here", event_of(5, "heard")));
    EXPECT_EQ(server.ask({"SUBSCRIBE", "there"}), "[message|here|heard]");
}

TEST_F(RedisLive, BinaryAndEmptyPayloads) {
    Pump pump(server.url());
    ASSERT_TRUE(pump.up());
    const std::string binary("\0\r\n$5\xff\0", 8), name("a\0b", 3);
    expect_delivered(pump.send("list", name, event_of(1, binary)));
    expect_delivered(pump.send("list", name, event_of(2, "")));
    EXPECT_EQ(server.ask({"LINDEX", name, "0"}), binary);
    EXPECT_EQ(server.ask({"LINDEX", name, "1"}), "");
    expect_delivered(pump.send("stream", "s", event_of(1, binary)));
    EXPECT_NE(server.ask({"XRANGE", "s", "-", "+"}).find("|payload|" + binary + "|content_type|"), std::string::npos);
}

TEST_F(RedisLive, TenMegabytes) {
    Pump pump(server.url());
    ASSERT_TRUE(pump.up());
    std::string huge(10 << 20, 'x');
    for (std::size_t i = 0; i < huge.size(); i += 97) huge[i] = static_cast<char>(i);
    expect_delivered(pump.send("list", "big", event_of(1, huge)));
    EXPECT_TRUE(server.ask({"LINDEX", "big", "0"}) == huge);
    expect_delivered(pump.send("list", "big", event_of(2, "small")));
}

TEST_F(RedisLive, MaxlenTrims) {
    Pump pump(server.url());
    ASSERT_TRUE(pump.up());
    for (int i = 0; i < 1000; ++i) {
        ASSERT_TRUE(pump.offer("stream", "trimmed", event_of(i, "x"), 100));
        ASSERT_TRUE(pump.offer("stream", "whole", event_of(i, "x")));
        if (i % 100 == 0) {
            ASSERT_TRUE(pump.all_settled());
        }
    }
    ASSERT_TRUE(pump.all_settled());
    EXPECT_LE(std::stoi(server.ask({"XLEN", "trimmed"})), 300);
    EXPECT_GE(std::stoi(server.ask({"XLEN", "trimmed"})), 100);
    EXPECT_EQ(server.ask({"XLEN", "whole"}), "1000");
}

TEST_F(RedisLive, OrderOverManyWindows) {
    Pump pump(server.url());
    ASSERT_TRUE(pump.up());
    std::vector<std::string> payloads;
    for (int i = 0; i < 30000; ++i) payloads.push_back(std::to_string(i));
    for (int i = 0; i < 30000;) {
        if (pump.offer("list", "l", event_of(i, payloads[static_cast<std::size_t>(i)])))
            ++i;
        else
            pump.step();
    }
    ASSERT_TRUE(pump.all_settled());
    EXPECT_TRUE(std::all_of(pump.settled.begin(), pump.settled.end(),
                            [](const auto& item) { return item.second.verdict == Verdict::delivered; }));
    EXPECT_TRUE(std::is_sorted(pump.order.begin(), pump.order.end()));
    EXPECT_EQ(server.ask({"LLEN", "l"}), "30000");
    for (const int i : {0, 1, 9999, 10000, 29999})
        EXPECT_EQ(server.ask({"LINDEX", "l", std::to_string(i)}), std::to_string(i));
}

TEST_F(RedisLive, WrongTypeConcernsItsEventAlone) {
    Pump pump(server.url());
    ASSERT_TRUE(pump.up());
    server.ask({"SET", "text", "1"});
    ASSERT_TRUE(pump.offer("list", "l", event_of(1, "a")));
    ASSERT_TRUE(pump.offer("stream", "text", event_of(2, "b")));
    ASSERT_TRUE(pump.offer("list", "l", event_of(3, "c")));
    ASSERT_TRUE(pump.all_settled());
    expect_delivered(pump.settled[1]);
    expect_refused(pump.settled[2], Remedy::park, "WRONGTYPE Operation against a key holding the wrong kind of value");
    expect_delivered(pump.settled[3]);
    EXPECT_EQ(pump.link().state, LinkState::up);
}

TEST_F(RedisLive, OutOfMemoryAndReadOnlyAreForLater) {
    Pump pump(server.url());
    ASSERT_TRUE(pump.up());
    server.ask({"CONFIG", "SET", "maxmemory", "1"});
    expect_refused(pump.send("list", "l", event_of(1, "x")), Remedy::retry, "OOM command not allowed");
    server.ask({"CONFIG", "SET", "maxmemory", "0"});
    server.ask({"REPLICAOF", "127.0.0.1", std::to_string(free_port())});
    expect_refused(pump.send("list", "l", event_of(2, "x")), Remedy::retry, "READONLY");
    server.ask({"REPLICAOF", "NO", "ONE"});
    expect_delivered(pump.send("list", "l", event_of(3, "x")));
}

TEST_F(RedisLive, UsersAndDatabases) {
    server.ask({"ACL", "SETUSER", "bus", "on", ">s3cret", "~allowed*", "+@all"});
    const std::string at = "redis://bus:s3cret@" + server.socket();
    // The path of the socket, percent-encoded, leaves the URL's path to the database.
    std::string encoded;
    for (const char c : server.socket()) encoded += c == '/' ? "%2F" : std::string(1, c);
    Pump pump("redis://bus:s3cret@" + encoded + "/5");
    ASSERT_TRUE(pump.up()) << pump.link().reason;
    expect_delivered(pump.send("list", "allowed", event_of(1, "x")));
    expect_refused(pump.send("list", "forbidden", event_of(2, "x")), Remedy::forbidden, "NOPERM");
    EXPECT_EQ(server.ask({"LLEN", "allowed"}), "0");
    EXPECT_EQ(server.ask({"SELECT", "5"}), "OK");
    EXPECT_EQ(server.ask({"LLEN", "allowed"}), "1");

    Pump by_parameter(at + "?db=6");
    ASSERT_TRUE(by_parameter.up()) << by_parameter.link().reason;
    expect_delivered(by_parameter.send("list", "allowed", event_of(1, "x")));
    EXPECT_EQ(server.ask({"SELECT", "6"}), "OK");
    EXPECT_EQ(server.ask({"LLEN", "allowed"}), "1");

    Pump wrong("redis://bus:nonsense@" + encoded);
    ASSERT_TRUE(wrong.down());
    EXPECT_EQ(wrong.link().remedy, Remedy::fix_settings);
    EXPECT_EQ(wrong.link().reason, "WRONGPASS invalid username-password pair or user is disabled.");

    Pump beyond(at + "?db=16");
    ASSERT_TRUE(beyond.down());
    EXPECT_EQ(beyond.link().remedy, Remedy::fix_settings);
    EXPECT_EQ(beyond.link().reason, "ERR DB index is out of range");

    server.ask({"CONFIG", "SET", "requirepass", "all"});
    Pump refused(server.url());
    ASSERT_TRUE(refused.down());
    EXPECT_EQ(refused.link().remedy, Remedy::fix_settings);
    EXPECT_EQ(refused.link().reason, "NOAUTH Authentication required.");
    Pump known("redis://:all@" + encoded);
    EXPECT_TRUE(known.up()) << known.link().reason;
}

TEST_F(RedisLive, KilledByTheServer) {
    Pump pump(server.url());
    ASSERT_TRUE(pump.up());
    server.ask({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
    ASSERT_TRUE(pump.down());
    EXPECT_EQ(pump.link().remedy, Remedy::retry);
    EXPECT_EQ(pump.link().reason, "the server closed the connection");
}

TEST_F(RedisLive, FrozenServer) {
    BrokerSettings settings = redis_settings(server.url());
    settings.options.heartbeat_s = 1;
    Pump pump(settings);
    ASSERT_TRUE(pump.up());
    server.process().signal(SIGSTOP);
    ASSERT_TRUE(pump.offer("list", "l", event_of(1, "x")));
    ASSERT_TRUE(pump.down());
    EXPECT_EQ(pump.link().reason, "no reply for 1 s");
    EXPECT_EQ(pump.settled[1].verdict, Verdict::unknown);
    server.process().signal(SIGCONT);
    Pump again(server.url());
    EXPECT_TRUE(again.up());
}

TEST(RedisTls, TrustAndNames) {
    TempDir dir;
    make_certificates(dir);
    const std::string port = std::to_string(free_port());
    RedisServer server({"--tls-port", port, "--tls-cert-file", dir.file("server.pem"), "--tls-key-file",
                        dir.file("server.key"), "--tls-ca-cert-file", dir.file("ca.pem"), "--tls-auth-clients",
                        "optional"});

    const auto settings = [&](const std::string& host, const std::string& ca) {
        BrokerSettings made = redis_settings("rediss://" + host + ":" + port);
        made.options.ca_file = dir.file(ca);
        return made;
    };
    std::int64_t id = 0;
    for (const char* host : {"localhost", "127.0.0.1"}) {
        Pump pump(settings(host, "ca.pem"));
        ASSERT_TRUE(pump.up()) << pump.link().reason;
        const std::string large(3 << 20, 'x');
        expect_delivered(pump.send("stream", "s", event_of(++id, "x")));
        expect_delivered(pump.send("list", "l", event_of(++id, large)));
    }
    EXPECT_EQ(server.ask({"XLEN", "s"}), "2");

    BrokerSettings client = settings("localhost", "ca.pem");
    client.options.cert_file = dir.file("client.pem");
    client.options.key_file = dir.file("client.key");
    Pump certified(client);
    EXPECT_TRUE(certified.up()) << certified.link().reason;

    Pump wrong_ca(settings("localhost", "other_ca.pem"));
    ASSERT_TRUE(wrong_ca.down());
    EXPECT_EQ(wrong_ca.link().remedy, Remedy::fix_settings);
    EXPECT_EQ(wrong_ca.link().reason.find("the server's certificate is not accepted: "), 0u) << wrong_ca.link().reason;

    Pump wrong_name(settings("127.1", "ca.pem"));
    ASSERT_TRUE(wrong_name.down());
    EXPECT_EQ(wrong_name.link().remedy, Remedy::fix_settings);
    EXPECT_EQ(wrong_name.link().reason, "the server's certificate is not accepted: hostname mismatch");

    Pump no_file(settings("localhost", "missing.pem"));
    ASSERT_TRUE(no_file.down());
    EXPECT_EQ(no_file.link().remedy, Remedy::fix_settings);

    BrokerSettings careless = settings("127.1", "other_ca.pem");
    careless.options.verify = false;
    Pump unverified(careless);
    EXPECT_TRUE(unverified.up()) << unverified.link().reason;
}
