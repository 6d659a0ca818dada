// What it is: tests that an event offered again after a lost connection is not added to its stream twice.
// Who calls it: make -C test/unit redis.
// Never: touches a Redis that it did not start.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "broker/redis/stream_history.hpp"
#include "redis_support.hpp"

using namespace eventbus;
using namespace eventbus::test;
using eventbus::broker::redis::StreamHistory;

namespace {

class RedisPast : public ::testing::Test {
 protected:
    RedisServer server;

    // Offers events first … last, whatever the window, and waits for all.
    static void send_range(Pump& pump, const std::string& stream, int first, int last) {
        for (int id = first; id <= last;) {
            if (pump.offer("stream", stream, event_of(id, "x")))
                ++id;
            else
                pump.step();
            ASSERT_NE(pump.link().state, LinkState::down) << pump.link().reason;
        }
        ASSERT_TRUE(pump.all_settled()) << pump.link().reason;
        for (const auto& [ticket, settlement] : pump.settled) expect_delivered(settlement);
        EXPECT_TRUE(std::is_sorted(pump.order.begin(), pump.order.end()));
    }
    std::string length(const std::string& stream) { return server.ask({"XLEN", stream}); }
    bool has_asked(const std::string& command) {
        return server.ask({"INFO", "commandstats"}).find("cmdstat_" + command) != std::string::npos;
    }
};

std::int64_t now_us() {
    return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
        .count();
}

}  // namespace

TEST_F(RedisPast, WhatStandsInTheStreamIsNotAddedAgain) {
    {
        Pump before(server.url());
        ASSERT_TRUE(before.up());
        send_range(before, "s", 1, 100);
    }
    Pump after(server.url());
    ASSERT_TRUE(after.up());
    send_range(after, "s", 51, 120);
    EXPECT_EQ(length("s"), "120");
    const std::string all = server.ask({"XRANGE", "s", "-", "+"});
    std::size_t at = 0;
    for (int id = 1; id <= 120; ++id) {
        at = all.find("[id|" + std::to_string(id) + "|", at);
        ASSERT_NE(at, std::string::npos) << id;
    }
}

TEST_F(RedisPast, LongTailsAmongOthersEntriesAreReadInPages) {
    {
        Pump before(server.url());
        ASSERT_TRUE(before.up());
        for (int i = 0; i < 10; ++i) {
            send_range(before, "s", i * 1000 + 1, i * 1000 + 1000);
            for (int j = 0; j < 50; ++j)
                server.ask({"XADD", "s", "*", "id", std::to_string(20000 + j), "other", "source"});
        }
    }
    Pump after(server.url());
    ASSERT_TRUE(after.up());
    send_range(after, "s", 1, 10100);
    EXPECT_EQ(length("s"), "10600");
}

TEST_F(RedisPast, EachCopyAnswersOnce) {
    {
        Pump before(server.url());
        ASSERT_TRUE(before.up());
        expect_delivered(before.send("stream", "s", event_of(1, "x")));
        expect_delivered(before.send("stream", "s", event_of(1, "x")));
    }
    EXPECT_EQ(length("s"), "2");
    Pump after(server.url());
    ASSERT_TRUE(after.up());
    for (int i = 0; i < 3; ++i) expect_delivered(after.send("stream", "s", event_of(1, "x")));
    EXPECT_EQ(length("s"), "3");
}

// Two routes into one stream, of which one stands further back than the other.
TEST_F(RedisPast, ReadingFurtherBackCountsNothingTwice) {
    Event recent = event_of(2, "x"), old = event_of(1, "x");
    recent.published_at = now_us() - 1'000'000;
    old.published_at = recent.published_at - 300'000'000;
    {
        Pump before(server.url());
        ASSERT_TRUE(before.up());
        expect_delivered(before.send("stream", "s", recent));
    }
    Pump after(server.url());
    ASSERT_TRUE(after.up());
    expect_delivered(after.send("stream", "s", recent));
    expect_delivered(after.send("stream", "s", old));
    EXPECT_EQ(length("s"), "2");
    expect_delivered(after.send("stream", "s", recent));
    EXPECT_EQ(length("s"), "3");
}

TEST_F(RedisPast, WhatWasTrimmedOrDeletedIsAddedAgain) {
    {
        Pump before(server.url());
        ASSERT_TRUE(before.up());
        send_range(before, "trimmed", 1, 100);
        send_range(before, "deleted", 1, 100);
    }
    server.ask({"XTRIM", "trimmed", "MAXLEN", "10"});
    server.ask({"DEL", "deleted"});
    Pump after(server.url());
    ASSERT_TRUE(after.up());
    send_range(after, "trimmed", 51, 90);
    send_range(after, "deleted", 51, 100);
    EXPECT_EQ(length("trimmed"), "50");
    EXPECT_EQ(length("deleted"), "50");
}

TEST_F(RedisPast, AnIdAloneIsNoProof) {
    {
        Pump before(server.url());
        ASSERT_TRUE(before.up());
        expect_delivered(before.send("stream", "s", event_of(1, "x")));
    }
    Pump after(server.url());
    ASSERT_TRUE(after.up());
    Event event = event_of(1, "x");
    ++event.published_at;
    expect_delivered(after.send("stream", "s", event));
    EXPECT_EQ(length("s"), "2");

    BrokerSettings settings = redis_settings(server.url());
    settings.source = "postgresql://unit/other";
    Pump other(settings);
    ASSERT_TRUE(other.up());
    expect_delivered(other.send("stream", "s", event_of(1, "x")));
    expect_delivered(other.send("stream", "another", event_of(1, "x")));
    EXPECT_EQ(length("s"), "3");
    EXPECT_EQ(length("another"), "1");
}

// A standby that has been promoted gives LSNs again that the old primary has used.
TEST_F(RedisPast, AnIdFromTheWalAloneIsNoProof) {
    Event event = event_of(1, "x");
    event.id = {0x16B3748, 1};
    {
        Pump before(server.url());
        ASSERT_TRUE(before.up());
        expect_delivered(before.send("stream", "s", event));
    }
    Pump after(server.url());
    ASSERT_TRUE(after.up());
    expect_delivered(after.send("stream", "s", event));
    EXPECT_EQ(length("s"), "1");
    ++event.published_at;
    expect_delivered(after.send("stream", "s", event));
    EXPECT_EQ(length("s"), "2");
}

// A message of no transaction gets the time of its reading; and another payload on another timeline.
TEST_F(RedisPast, WhatTheWalKnowsNoTimeOfIsKnownByItsPayload) {
    Event event = event_of(1, "x");
    event.id = {0x16B3748, 1};
    event.is_timeless = true;
    {
        Pump before(server.url());
        ASSERT_TRUE(before.up());
        expect_delivered(before.send("stream", "s", event));
    }
    Pump after(server.url());
    ASSERT_TRUE(after.up());
    event.published_at = now_us() + 2'000'000;  // read long after the connection was begun
    ASSERT_TRUE(after.until([&] { return now_us() > event.published_at; }));
    expect_delivered(after.send("stream", "s", event));
    EXPECT_EQ(length("s"), "1");
    event.payload = "another";
    expect_delivered(after.send("stream", "s", event));
    EXPECT_EQ(length("s"), "2");
}

TEST_F(RedisPast, NewEventsAskNothing) {
    Pump pump(server.url());
    ASSERT_TRUE(pump.up());
    Event event = event_of(1, "x");
    event.published_at = now_us() + 3'000'000;  // more than a clock is corrected by in passing
    ASSERT_TRUE(pump.until([&] { return now_us() > event.published_at; }));
    expect_delivered(pump.send("stream", "s", event));
    expect_delivered(pump.send("list", "l", event_of(2, "x")));
    EXPECT_FALSE(has_asked("xrevrange"));
    EXPECT_FALSE(has_asked("client|list"));
    expect_delivered(pump.send("stream", "s", event_of(3, "x")));
    EXPECT_TRUE(has_asked("xrevrange"));
    EXPECT_TRUE(has_asked("client|list"));
}

TEST_F(RedisPast, OrderIsKeptBehindAnUncertainEvent) {
    Pump pump(server.url());
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer("stream", "s", event_of(1, "first")));
    Event later = event_of(2, "second");
    later.published_at = now_us() + 3'600'000'000;
    ASSERT_TRUE(pump.offer("stream", "s", later));
    ASSERT_TRUE(pump.offer("list", "l", event_of(3, "third")));
    ASSERT_TRUE(pump.all_settled());
    EXPECT_EQ(pump.order, (std::vector<std::uint64_t>{1, 2, 3}));
    const std::string all = server.ask({"XRANGE", "s", "-", "+"});
    EXPECT_LT(all.find("first"), all.find("second"));
}

TEST_F(RedisPast, ServersThatDoNotLetUsAsk) {
    server.ask({"ACL", "SETUSER", "adder", "on", ">p", "~*", "+xadd"});
    const std::string url = "redis://adder:p@" + server.socket();
    for (int i = 0; i < 2; ++i) {
        Pump pump(url);
        ASSERT_TRUE(pump.up()) << pump.link().reason;
        expect_delivered(pump.send("stream", "s", event_of(1, "x")));
    }
    EXPECT_EQ(length("s"), "2") << "at least once";
    server.ask({"SET", "text", "1"});
    Pump pump(server.url());
    ASSERT_TRUE(pump.up());
    expect_refused(pump.send("stream", "text", event_of(1, "x")), Remedy::park, "WRONGTYPE");
}

TEST_F(RedisPast, WhatAnEarlierConnectionHasUnderWay) {
    for (int round = 0; round < 5; ++round) {
        const std::string stream = "s" + std::to_string(round);
        auto before = std::make_unique<Pump>(server.url());
        ASSERT_TRUE(before->up());
        expect_delivered(before->send("stream", stream, event_of(0, "x")));
        server.process().signal(SIGSTOP);
        for (int id = 1; id <= 2000; ++id) ASSERT_TRUE(before->offer("stream", stream, event_of(id, "x")));
        for (int i = 0; i < 20; ++i) before->driver().drive({false, true}, Clock::now());
        before.reset();
        Pump after(server.url());
        after.driver().drive({false, true}, Clock::now());
        server.process().signal(SIGCONT);
        ASSERT_TRUE(after.up()) << after.link().reason;
        send_range(after, stream, 0, 2100);
        EXPECT_EQ(length(stream), "2101");
    }
}

TEST_F(RedisPast, ManyStreams) {
    for (int round = 0; round < 2; ++round) {
        Pump pump(server.url());
        ASSERT_TRUE(pump.up());
        std::vector<std::string> names;
        for (int i = 0; i < 12000; ++i) names.push_back("s" + std::to_string(i));
        for (int i = 0; i < 12000;) {
            if (pump.offer("stream", names[static_cast<std::size_t>(i)], event_of(i, "x")))
                ++i;
            else
                pump.step();
        }
        ASSERT_TRUE(pump.all_settled());
        for (const char* name : {"s0", "s1", "s9999", "s10001", "s11999"}) EXPECT_EQ(length(name), "1") << name;
    }
}

// Answers to TIME and CLIENT LIST.
std::string time_and_nobody(std::int64_t us) {
    const std::string seconds = std::to_string(us / 1'000'000), rest = std::to_string(us % 1'000'000);
    return "*2\r\n$" + std::to_string(seconds.size()) + "\r\n" + seconds + "\r\n$" + std::to_string(rest.size()) +
           "\r\n" + rest + "\r\n$0\r\n\r\n";
}

// How far back, in milliseconds from now, a stream is read for an event that was published now, with these answers.
std::int64_t read_back(const std::string& answers) {
    std::string asked;
    Server server([&](Socket& socket) {
        socket.receive();
        socket.send("+PONG\r\n+OK\r\n");
        socket.receive();
        socket.send(answers);
        asked = socket.receive();
        socket.send("*0\r\n");
        socket.receive();
        socket.send("$3\r\n1-1\r\n");
        socket.wait_for_end();
    });
    Event event = event_of(1, "x");
    event.published_at = now_us();
    Pump pump("redis://" + server.host().shown());
    EXPECT_TRUE(pump.up());
    expect_delivered(pump.send("stream", "s", event));
    const std::size_t at = asked.find("$1\r\n+\r\n");  // XREVRANGE s + from COUNT n
    const std::size_t from = asked.find("\r\n", at + 7) + 2;
    return at == std::string::npos ? 0 : event.published_at / 1000 - std::stoll(asked.substr(from));
}

TEST(RedisPastFake, TheServersClockCounts) {
    constexpr std::int64_t hour = 3600, us = 1'000'000, slack = 20'000;
    for (const std::int64_t ahead : {-hour, std::int64_t{0}, hour})
        EXPECT_NEAR(static_cast<double>(read_back(time_and_nobody(now_us() + ahead * us))),
                    static_cast<double>(60'000 - ahead * 1000), slack)
            << ahead;
    for (const char* odd : {"-NOPERM no", ":5", "*0", "*2\r\n$1\r\nx\r\n$1\r\n1", "*2\r\n$1\r\n-\r\n$2\r\n-1",
                            "*2\r\n$18\r\n999999999999999999\r\n$1\r\n0", "*3\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n1"})
        EXPECT_NEAR(static_cast<double>(read_back(std::string(odd) + "\r\n$0\r\n\r\n")), 60'000, slack) << odd;
}

// How often the server was asked for its connections before the past was read; an earlier one of ours is gone from the
// answer of that number on.
int questions_until(int gone_at) {
    int asked = 0;
    std::atomic<int> asked_before = 0;
    Server server([&](Socket& socket) {
        std::string name, text;
        for (std::string more = socket.receive(); !more.empty(); more = socket.receive()) {
            text += more;
            if (name.empty() && text.find("SETNAME\r\n") != std::string::npos) {
                name = text.substr(text.find("pg_eventbus:"));
                name = name.substr(0, name.find('\r'));
                socket.send("+PONG\r\n+OK\r\n");
            } else if (text.find("LIST\r\n") != std::string::npos) {
                const std::string line = "id=1 name=" + name + " age=1\n";
                const std::string lines = line + "id=2 name=" + name + "x age=1\n" + (++asked < gone_at ? line : "");
                const std::string time = text.find("TIME\r\n") != std::string::npos ? "*0\r\n" : "";
                socket.send(time + "$" + std::to_string(lines.size()) + "\r\n" + lines + "\r\n");
            } else if (text.find("XREVRANGE\r\n") != std::string::npos) {
                asked_before = asked;
                socket.send("*0\r\n");
            } else if (text.find("XADD\r\n") != std::string::npos) {
                socket.send("$3\r\n1-1\r\n");
            }
            text.clear();
        }
    });
    Pump pump("redis://" + server.host().shown());
    EXPECT_TRUE(pump.up());
    expect_delivered(pump.send("stream", "s", event_of(1, "x")));
    EXPECT_EQ(pump.driver().wake_at(), TimePoint::max());
    return asked_before;
}

TEST(RedisPastFake, WaitsForEarlierConnections) {
    EXPECT_EQ(questions_until(4), 4);
}

// A proxy may hold one for ever.
TEST(RedisPastFake, WaitsForEarlierConnectionsForThreeSecondsAtMost) {
    EXPECT_GT(questions_until(1'000'000), 4);
}

TEST(RedisPastFake, LossWhileAsking) {
    for (const std::string words : {"", "-LOADING later\r\n", ":1\r\n$3\r\n1-1\r\n"}) {
        Server server([&](Socket& socket) {
            socket.receive();
            socket.send("+PONG\r\n+OK\r\n");
            socket.receive();
            socket.send("*0\r\n$0\r\n\r\n");
            socket.receive();
            socket.send(words);
            if (words.empty()) return;
            socket.wait_for_end();
        });
        Pump pump("redis://" + server.host().shown());
        ASSERT_TRUE(pump.up());
        ASSERT_TRUE(pump.offer("stream", "s", event_of(1, "x")));
        ASSERT_TRUE(pump.offer("list", "l", event_of(2, "x")));
        if (words.starts_with(":")) {  // an odd answer is no answer: the events go out
            ASSERT_TRUE(pump.until([&] { return pump.settled.size() == 1; })) << pump.link().reason;
            expect_delivered(pump.settled[1]);
            continue;
        }
        ASSERT_TRUE(pump.down());
        EXPECT_EQ(pump.link().remedy, Remedy::retry);
        EXPECT_EQ(pump.link().reason, words.empty() ? "the server closed the connection" : "LOADING later");
        ASSERT_EQ(pump.settled.size(), 2u);
        EXPECT_EQ(pump.settled[1].verdict, Verdict::unknown);
        EXPECT_EQ(pump.settled[2].verdict, Verdict::unknown);
    }
}

TEST(RedisPastNames, TellBrokersApart) {
    BrokerSettings settings = redis_settings("redis://h");
    const auto name = [&] { return redis::StreamHistory(settings, 0, TimePoint{}).client_name(); };
    const std::string first = name();
    EXPECT_EQ(first, name());
    settings.name = "other";
    EXPECT_NE(first, name());
    settings.name = "cache";
    settings.source += "2";
    EXPECT_NE(first, name());
}

// A connection that begins at `began`, by a clock that is `offset` ahead of the steady one; the server's is not.
class RedisPastClock : public ::testing::Test {
 protected:
    static constexpr std::int64_t hour = 3600'000'000, second = 1'000'000;
    static constexpr std::int64_t began = 1'800'000'000 * second;

    static TimePoint at(std::int64_t us) { return TimePoint(std::chrono::microseconds(us)); }
    static StreamHistory past(std::int64_t offset) {
        return {redis_settings("redis://127.0.0.1:1"), began + offset, at(began)};
    }
    static bool concerns(const StreamHistory& past, std::int64_t published_us) {
        Event event = event_of(1, "x");
        event.published_at = published_us;
        const Addressing addressing = redis_addressing("stream");
        Outgoing outgoing;
        outgoing.event = &event;
        outgoing.addressing = &addressing;
        return past.concerns(outgoing);
    }
    static std::int64_t since(const StreamHistory& past, std::int64_t published_us) {
        Event event = event_of(1, "x");
        event.published_at = published_us;
        return past.since(event);
    }
};

TEST_F(RedisPastClock, OneThatIsSetBackBeforeTheServerHasToldItsTimeHidesNothing) {
    StreamHistory connection = past(0);
    connection.clock_is(began + second - hour, at(began + second));
    connection.take_time(began + 2 * second, began + 2 * second - hour, at(began + 2 * second));
    EXPECT_LE(since(connection, began - 5 * second), began + second) << "it may stand there since before it began";
}

TEST_F(RedisPastClock, OneThatIsSetBackAndForwardAgainLeavesNothingUnasked) {
    StreamHistory connection = past(-hour);
    connection.clock_is(began + second - hour, at(began + second));
    EXPECT_TRUE(concerns(connection, began - second)) << "published before it was set back: from the future";
    connection.clock_is(began + 2 * second, at(began + 2 * second));
    EXPECT_TRUE(concerns(connection, began - second)) << "and now it is not any more";
    connection.clock_is(began + 3 * second - hour, at(began + 3 * second));
    EXPECT_TRUE(concerns(connection, began - second));
    connection.clock_is(began + 4 * second, at(began + 4 * second));
    EXPECT_FALSE(concerns(connection, began + 3 * second)) << "published on this connection";
}

TEST_F(RedisPastClock, WhatWasPublishedByAClockThatWasAheadIsLookedForSinceTheConnectionBegan) {
    StreamHistory connection = past(0);
    connection.clock_is(began + second, at(began + second));
    connection.take_time(began + second, began + second, at(began + second));
    EXPECT_TRUE(concerns(connection, began - second + hour));
    EXPECT_LE(since(connection, began - second + hour), began + second);
    EXPECT_EQ(since(connection, began - 20 * second), began - 20 * second);
}
