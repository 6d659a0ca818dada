// What it is: tests of the Redis driver against a server that behaves badly.
// Who calls it: make -C test/unit redis.
// Never: needs a Redis.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <string>

#include "redis_support.hpp"

using namespace eventbus;
using namespace eventbus::test;

namespace {

std::size_t count_of(const std::string& text, const std::string& part) {
    std::size_t count = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
    return count;
}

// Reads until so many commands of that name have come.
std::string receive_commands(Socket& socket, const std::string& name, std::size_t count) {
    std::string text;
    while (count_of(text, "\r\n" + name + "\r\n") < count) {
        const std::string more = socket.receive();
        if (more.empty()) break;
        text += more;
    }
    return text;
}

void let_in(Socket& socket) {
    receive_commands(socket, "SETNAME", 1);
    socket.send("+PONG\r\n+OK\r\n");
}

// Lets the client in and continues with the script.
Server::Script after_login(Server::Script script) {
    return [script = std::move(script)](Socket& socket) {
        let_in(socket);
        script(socket);
    };
}

// Says one thing in answer to the login.
Server::Script says(const std::string& words) {
    return [words](Socket& socket) {
        receive_commands(socket, "SETNAME", 1);
        socket.send(words);
        socket.wait_for_end();
    };
}

void expect_down(Pump& pump, Remedy remedy, const std::string& reason) {
    ASSERT_TRUE(pump.down());
    EXPECT_EQ(pump.link().remedy, remedy) << pump.link().reason;
    EXPECT_EQ(pump.link().reason, reason);
    EXPECT_EQ(pump.settled.size(), pump.offered());
    EXPECT_TRUE(pump.driver().interest().fd < 0);
    EXPECT_EQ(pump.driver().wake_at(), TimePoint::max());
    EXPECT_FALSE(pump.offer("list", "l", event_of(99, "x")));
    EXPECT_EQ(pump.step().state, LinkState::down);
}

void expect_unknown(const Settlement& settlement, const std::string& reason) {
    EXPECT_EQ(settlement.verdict, Verdict::unknown);
    EXPECT_EQ(settlement.remedy, Remedy::retry);
    EXPECT_EQ(settlement.reason, reason);
}

}  // namespace

TEST(RedisFake, LoginIsPipelinedInOrder) {
    std::string got;
    std::atomic<bool> done = false;
    Server server([&](Socket& socket) {
        got = receive_commands(socket, "SETNAME", 1);
        done = true;
        socket.send("+OK\r\n+OK\r\n+PONG\r\n+OK\r\n");
        socket.wait_for_end();
    });
    Pump pump("redis://us%20er:p%3Aw@" + server.host().shown() + "/5");
    EXPECT_FALSE(pump.offer("list", "l", event_of(1, "x"))) << "not up yet";
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(done);
    EXPECT_EQ(
        got.find("*3\r\n$4\r\nAUTH\r\n$5\r\nus er\r\n$3\r\np:w\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n5\r\n*1\r\n$4\r\nPING\r\n"
                 "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$28\r\npg_eventbus:"),
        0u)
        << got;
}

TEST(RedisFake, LoginRefused) {
    const std::pair<const char*, Remedy> cases[] = {
        {"-WRONGPASS invalid username-password pair or user is disabled.", Remedy::fix_settings},
        {"-ERR invalid password", Remedy::fix_settings},
        {"-ERR AUTH <password> called without any password configured", Remedy::fix_settings},
        {"-NOPERM this user has no permissions", Remedy::fix_settings},
        {"-DENIED Redis is running in protected mode", Remedy::fix_settings},
        {"-ERR max number of clients reached", Remedy::retry},
        {"-LOADING Redis is loading the dataset in memory", Remedy::retry},
    };
    for (const auto& [words, remedy] : cases) {
        Server server(says(std::string(words) + "\r\n-NOAUTH x\r\n-NOAUTH x\r\n-NOAUTH x\r\n"));
        Pump pump("redis://:pw@" + server.host().shown() + "/5");
        expect_down(pump, remedy, words + 1);
    }
    Server range(says("+OK\r\n-ERR DB index is out of range\r\n+PONG\r\n+OK\r\n"));
    Pump selecting("redis://:pw@" + range.host().shown() + "/99");
    expect_down(selecting, Remedy::fix_settings, "ERR DB index is out of range");
}

TEST(RedisFake, OnlyRefusalsOfWhatIsOptionalAreIgnored) {
    for (const char* words : {"+PONG\r\n-ERR unknown command 'CLIENT'\r\n", "+PONG\r\n-NOPERM no CLIENT for you\r\n",
                              "-NOPERM no PING for you\r\n+OK\r\n", "-MISCONF cannot write to disk\r\n+OK\r\n"}) {
        Server server(says(words));
        Pump pump("redis://" + server.host().shown());
        EXPECT_TRUE(pump.up()) << words;
    }
    Server closed(says("-NOAUTH Authentication required.\r\n"));
    Pump pump("redis://" + closed.host().shown());
    expect_down(pump, Remedy::fix_settings, "NOAUTH Authentication required.");
    for (const std::string words : {"LOADING wait", "MASTERDOWN wait", "BUSY wait"}) {
        Server busy(says("-" + words + "\r\n+OK\r\n"));
        Pump later("redis://" + busy.host().shown());
        expect_down(later, Remedy::retry, words);
    }
}

TEST(RedisFake, OfSeveralHostsReplicasArePassedOver) {
    const auto says_hello = [](const std::string& role) {
        return says("+PONG\r\n*6\r\n$6\r\nserver\r\n$5\r\nredis\r\n$4\r\nrole\r\n$" + std::to_string(role.size()) +
                    "\r\n" + role + "\r\n$7\r\nmodules\r\n*0\r\n+OK\r\n");
    };
    Server replica(says_hello("replica")), primary(says_hello("master"));
    const std::string url = "redis://" + replica.host().shown() + "," + primary.host().shown();
    Pump first(redis_settings(url), 0);
    expect_down(first, Remedy::retry, replica.host().shown() + " is a replica, which takes no messages");
    Pump second(redis_settings(url), 1);
    EXPECT_TRUE(second.up());
    Server old(says("+PONG\r\n-ERR unknown command 'HELLO'\r\n+OK\r\n"));
    Pump third("redis://" + old.host().shown() + ",nowhere.invalid");
    EXPECT_TRUE(third.up());
}

TEST(RedisFake, OfSeveralHostsOneThatBecameAReplicaIsLeft) {
    Server server([](Socket& socket) {
        receive_commands(socket, "SETNAME", 1);
        socket.send("+PONG\r\n-ERR no HELLO\r\n+OK\r\n");
        receive_commands(socket, "RPUSH", 1);
        socket.send("-READONLY You can't write against a read only replica.\r\n");
        socket.wait_for_end();
    });
    Pump pump("redis://" + server.host().shown() + ",nowhere.invalid");
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer("list", "l", event_of(1, "x")));
    expect_down(pump, Remedy::retry, "READONLY You can't write against a read only replica.");
    expect_unknown(pump.settled[1], "READONLY You can't write against a read only replica.");
}

TEST(RedisFake, RepliesDribble) {
    Server server(after_login([](Socket& socket) {
        receive_commands(socket, "RPUSH", 3);
        for (const char c : std::string(":1\r\n-OOM too much\r\n:123456\r\n")) socket.send({&c, 1});
        socket.wait_for_end();
    }));
    Pump pump("redis://" + server.host().shown());
    ASSERT_TRUE(pump.up());
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(pump.offer("list", "l", event_of(i, "x")));
    ASSERT_TRUE(pump.all_settled());
    expect_delivered(pump.settled[1]);
    expect_refused(pump.settled[2], Remedy::retry, "OOM too much");
    expect_delivered(pump.settled[3]);
    EXPECT_EQ(pump.order, (std::vector<std::uint64_t>{1, 2, 3}));
}

TEST(RedisFake, CutBetweenReplies) {
    Server server(after_login([](Socket& socket) {
        receive_commands(socket, "RPUSH", 4);
        socket.send(":1\r\n-WRONGTYPE no\r\n:3");
    }));
    Pump pump("redis://" + server.host().shown());
    ASSERT_TRUE(pump.up());
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(pump.offer("list", "l", event_of(i, "x")));
    expect_down(pump, Remedy::retry, "the server closed the connection");
    expect_delivered(pump.settled[1]);
    expect_refused(pump.settled[2], Remedy::park, "WRONGTYPE no");
    expect_unknown(pump.settled[3], "the server closed the connection");
    expect_unknown(pump.settled[4], "the server closed the connection");
}

TEST(RedisFake, Garbage) {
    const std::string reason = "the server sent something that is not Redis protocol";
    for (const std::string words : {"HTTP/1.1 400 Bad Request\r\n\r\n", "\x16\x03\x01", "*-9\r\n", "$x\r\n"}) {
        Server server(after_login([&](Socket& socket) {
            receive_commands(socket, "PUBLISH", 2);
            socket.send(":1\r\n" + words);
            socket.wait_for_end();
        }));
        Pump pump("redis://" + server.host().shown());
        ASSERT_TRUE(pump.up());
        ASSERT_TRUE(pump.offer("channel", "c", event_of(1, "x")));
        ASSERT_TRUE(pump.offer("topic", "c", event_of(2, "x")));
        expect_down(pump, Remedy::retry, reason);
        expect_delivered(pump.settled[1]);
        expect_unknown(pump.settled[2], reason);
    }
    for (const auto& [words, why] : std::vector<std::pair<std::string, std::string>>{
             {"SSH-2.0-OpenSSH\r\n", "the server speaks SSH on this port"},
             {"\x15\x03\x01", "the server speaks TLS on this port: use rediss:// in the broker's URL"},
             {{"AMQP\0\0\x09\x01", 8}, "the server speaks AMQP on this port, whose scheme is amqp://"},
             {"HTTP/1.1 400 Bad Request\r\n\r\n",
              "the server answers in HTTP (\"HTTP/1.1 400 Bad Request\"): it is a web server or a proxy, or another "
              "port "
              "of the broker"},
             {"SSS", reason}}) {
        Server login(says(words));
        Pump pump("redis://" + login.host().shown());
        expect_down(pump, Remedy::retry, why);
    }
    Server leaves([](Socket& socket) { receive_commands(socket, "SETNAME", 1); });
    Pump left("redis://" + leaves.host().shown());
    expect_down(left, Remedy::retry, "the server closed the connection; if it wants TLS on this port, use rediss://");

    Server endless(after_login([](Socket& socket) {
        std::string flood(1 << 16, 'x');
        socket.send("$536870912\r\n");
        while (socket.send(flood)) {
        }
    }));
    Pump flooded("redis://" + endless.host().shown());
    expect_down(flooded, Remedy::retry, reason);
}

TEST(RedisFake, RepliesThatFitNoTicket) {
    Server unasked(after_login([](Socket& socket) {
        socket.send(":1\r\n");
        socket.wait_for_end();
    }));
    Pump idle("redis://" + unasked.host().shown());
    expect_down(idle, Remedy::retry, "the server sent a reply to nothing");
}

// Only the command's own kind of answer says that it was done. Whatever else came, this message alone has it.
TEST(RedisFake, AnswersOfTheWrongKindDeliverNothing) {
    struct Case {
        std::string kind, command, good, odd, said;
    };
    const std::string entry = "$3\r\n1-1\r\n", array = "*2\r\n:1\r\n-ERR secret\r\n";
    const std::string no_entry = "not with the id of an entry", no_length = "not with the length of the list";
    for (const auto& [kind, command, good, odd, said] : std::vector<Case>{
             {"stream", "XADD", entry, ":1\r\n", "an integer, " + no_entry},
             {"stream", "XADD", entry, "$0\r\n\r\n", "an empty string, " + no_entry},
             {"stream", "XADD", entry, "$6\r\nsecret\r\n", "a string, " + no_entry},
             {"stream", "XADD", entry, "$3\r\n1-x\r\n", "a string, " + no_entry},
             {"stream", "XADD", entry, "$2\r\n1-\r\n", "a string, " + no_entry},
             {"stream", "XADD", "+7-0\r\n", "+OK\r\n", "a status, " + no_entry},
             {"stream", "XADD", entry, "$-1\r\n", "nothing, " + no_entry},
             {"stream", "XADD", entry, "*0\r\n", "an array, " + no_entry},
             {"list", "RPUSH", ":1\r\n", ":0\r\n", "an integer, " + no_length},
             {"list", "RPUSH", ":1\r\n", ":-1\r\n", "an integer, " + no_length},
             {"list", "RPUSH", ":1\r\n", entry, "a string, " + no_length},
             {"list", "RPUSH", ":1\r\n", "+QUEUED\r\n", "a status, " + no_length},
             {"list", "RPUSH", ":1\r\n", array, "an array, " + no_length},
             {"channel", "PUBLISH", ":0\r\n", ":-1\r\n", "an integer, not with the number of receivers"},
             {"channel", "PUBLISH", ":0\r\n", "$1\r\n1\r\n", "a string, not with the number of receivers"},
         }) {
        Server server([&, command = command, good = good, odd = odd](Socket& socket) {
            let_in(socket);
            for (std::string text = socket.receive(); !text.empty(); text = socket.receive()) {
                if (text.find("TIME\r\n") != std::string::npos) socket.send("*0\r\n");
                if (text.find("LIST\r\n") != std::string::npos) socket.send("$0\r\n\r\n");
                if (text.find("XREVRANGE\r\n") != std::string::npos) socket.send("*0\r\n");
                for (std::size_t i = count_of(text, "\r\npoison\r\n"); i > 0; --i) socket.send(odd);
                for (std::size_t i = count_of(text, "\r\nfine\r\n"); i > 0; --i) socket.send(good);
            }
        });
        Pump pump("redis://" + server.host().shown());
        ASSERT_TRUE(pump.up());
        SCOPED_TRACE(command + " " + odd);
        expect_delivered(pump.send(kind, "n", event_of(1, "fine")));
        const Settlement poison = pump.send(kind, "n", event_of(2, "poison"));
        expect_refused(poison, Remedy::unclear, "the server answered " + command + " with " + said);
        EXPECT_EQ(poison.reason, "the server answered " + command + " with " + said);
        expect_delivered(pump.send(kind, "n", event_of(3, "fine")));
        EXPECT_EQ(pump.link().state, LinkState::up) << pump.link().reason;
    }
}

TEST(RedisFake, SilenceWhileConnecting) {
    Server server([](Socket& socket) { socket.wait_for_end(); });
    BrokerSettings settings = redis_settings("redis://" + server.host().shown());
    settings.options.connect_timeout_ms = 150;
    Pump pump(settings);
    const auto begin = Clock::now();
    expect_down(pump, Remedy::retry, "no answer to the login within 0.15 s");
    EXPECT_GE(Clock::now() - begin, 140ms);
    EXPECT_LT(Clock::now() - begin, 5s);
    settings = redis_settings("rediss://" + server.host().shown());
    settings.options.connect_timeout_ms = 150;
    Pump secret(settings);
    expect_down(secret, Remedy::retry,
                server.host().shown() +
                    " took the connection, but does not answer the TLS handshake (it may not speak TLS; use redis:// "
                    "then) within 0.15 s");
}

TEST(RedisFake, SilenceWithTicketsOpen) {
    std::atomic<bool> reply = false;
    Server server(after_login([&](Socket& socket) {
        receive_commands(socket, "RPUSH", 1);
        eventually([&] { return reply.load(); });
        socket.send(":1\r\n");
        socket.wait_for_end();
    }));
    BrokerSettings settings = redis_settings("redis://" + server.host().shown());
    settings.options.heartbeat_s = 5;
    Pump pump(settings);
    ASSERT_TRUE(pump.up());
    Driver& driver = pump.driver();
    EXPECT_EQ(driver.wake_at(), TimePoint::max()) << "idle: nothing to wake for";
    const auto late = Clock::now() + 1h;
    EXPECT_EQ(driver.drive({}, late).state, LinkState::up) << "idle: silence is fine";

    ASSERT_TRUE(pump.offer("list", "l", event_of(1, "x")));
    EXPECT_EQ(driver.drive({false, true}, late).state, LinkState::up);
    EXPECT_EQ(driver.wake_at(), late + 5s);
    EXPECT_EQ(driver.drive({}, late + 4999ms).state, LinkState::up);
    reply = true;
    Settlement settlement;
    ASSERT_TRUE(eventually([&] {
        driver.drive({true, false}, late + 4999ms);
        return driver.settle({&settlement, 1}) == 1;
    }));
    expect_delivered(settlement);
    EXPECT_EQ(driver.wake_at(), TimePoint::max()) << "answered: nothing to wake for";

    ASSERT_TRUE(pump.offer("list", "l", event_of(2, "x")));
    EXPECT_EQ(driver.drive({false, true}, late + 1h).state, LinkState::up);
    EXPECT_EQ(driver.drive({}, late + 1h + 5s).state, LinkState::down);
    pump.step();
    expect_unknown(pump.settled[2], "no reply for 5 s");
}

TEST(RedisFake, WhatTheKernelTakesIsNoSignOfLife) {
    Server server(after_login([](Socket& socket) { socket.wait_for_end(); }));
    BrokerSettings settings = redis_settings("redis://" + server.host().shown());
    settings.options.heartbeat_s = 5;
    Pump pump(settings);
    ASSERT_TRUE(pump.up());
    const auto begin = Clock::now();
    for (int second = 0; second < 5; ++second) {
        ASSERT_TRUE(pump.offer("list", "l", event_of(second, "x")));
        EXPECT_EQ(pump.driver().drive({false, true}, begin + second * 1s).state, LinkState::up);
    }
    EXPECT_EQ(pump.driver().drive({}, begin + 5s).reason, "no reply for 5 s");
}

TEST(RedisFake, HeartbeatZeroIsOff) {
    Server server(after_login([](Socket& socket) { socket.wait_for_end(); }));
    BrokerSettings settings = redis_settings("redis://" + server.host().shown());
    settings.options.heartbeat_s = 0;
    Pump pump(settings);
    ASSERT_TRUE(pump.up());
    ASSERT_TRUE(pump.offer("list", "l", event_of(1, "x")));
    EXPECT_EQ(pump.driver().drive({false, true}, Clock::now() + 100h).state, LinkState::up);
    EXPECT_EQ(pump.driver().drive({false, true}, Clock::now() + 200h).state, LinkState::up);
    EXPECT_EQ(pump.driver().wake_at(), TimePoint::max());
}

TEST(RedisFake, WindowOfTickets) {
    std::atomic<bool> go = false;
    Server server(after_login([&](Socket& socket) {
        receive_commands(socket, "RPUSH", 3);
        eventually([&] { return go.load(); });
        socket.send(":1\r\n");
        socket.wait_for_end();
    }));
    BrokerSettings settings = redis_settings("redis://" + server.host().shown());
    settings.options.window = 3;
    Pump pump(settings);
    ASSERT_TRUE(pump.up());
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(pump.offer("list", "l", event_of(i, "x")));
    EXPECT_FALSE(pump.offer("list", "l", event_of(4, "x")));
    go = true;
    ASSERT_TRUE(pump.until([&] { return pump.settled.size() == 1; }));
    EXPECT_TRUE(pump.offer("list", "l", event_of(4, "x")));
    EXPECT_FALSE(pump.offer("list", "l", event_of(5, "x")));
}

TEST(RedisFake, WindowOfBytes) {
    Server server(after_login([](Socket& socket) { socket.wait_for_end(); }));
    Pump pump("redis://" + server.host().shown());
    ASSERT_TRUE(pump.up());
    const std::string huge(3 << 20, 'x'), large(200'000, 'x');
    ASSERT_TRUE(pump.offer("list", "l", event_of(1, huge))) << "one always fits";
    EXPECT_FALSE(pump.offer("list", "l", event_of(2, "x")));

    Pump other("redis://" + server.host().shown());
    (void)pump.driver().drive({}, Clock::now() + 1h);  // ends the first one: the server serves one after another
    (void)pump.driver().drive({}, Clock::now() + 2h);
    ASSERT_TRUE(other.up());
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(other.offer("list", "l", event_of(i, large)));
    EXPECT_FALSE(other.offer("list", "l", event_of(6, large)));
    EXPECT_TRUE(other.offer("list", "l", event_of(7, "small")));
}

TEST(RedisFake, HostsTakeTurns) {
    Server server(says("+PONG\r\n-ERR no HELLO\r\n+OK\r\n"));
    const std::string dead = "127.0.0.1:" + std::to_string(free_port());
    const std::string url = "redis://" + dead + "," + server.host().shown();
    for (unsigned attempt = 0; attempt < 4; ++attempt) {
        Pump pump(redis_settings(url), attempt);
        if (attempt % 2 == 0) {
            expect_down(pump, Remedy::retry, "could not connect to " + dead + ": Connection refused");
        } else {
            EXPECT_TRUE(pump.up());
        }
    }
}

TEST(RedisFake, ReasonsHoldNoSecret) {
    Server server([](Socket& socket) { socket.receive(); });
    Pump pump("redis://u:hunter2@" + server.host().shown());
    ASSERT_TRUE(pump.down());
    EXPECT_EQ(pump.link().reason.find("hunter2"), std::string::npos);
}

// redis-server's option "timeout".
TEST(RedisFake, AnIdleConnectionThatIsClosedIsToldApart) {
    std::promise<void> close;
    Server idle(after_login([&](Socket&) { close.get_future().wait(); }));
    Pump pump("redis://" + idle.host().shown());
    ASSERT_TRUE(pump.up());
    close.set_value();
    Link link;
    ASSERT_TRUE(eventually([&] {
        link = pump.driver().drive({true, true}, Clock::now() + 2s);
        return link.state == LinkState::down;
    }));
    EXPECT_TRUE(link.idle);
    EXPECT_EQ(link.remedy, Remedy::retry);

    Server fresh(after_login([](Socket&) {}));
    Pump used("redis://" + fresh.host().shown());
    ASSERT_TRUE(used.up());
    ASSERT_TRUE(used.down());
    EXPECT_FALSE(used.link().idle) << "it was used just now";

    for (const std::string kind : {"channel", "stream"}) {  // one of a stream waits until its past is known
        const std::string command = kind == "channel" ? "PUBLISH" : "CLIENT\r\n$4\r\nLIST";
        Server busy(after_login([&](Socket& socket) { receive_commands(socket, command, 1); }));
        Pump waiting("redis://" + busy.host().shown());
        ASSERT_TRUE(waiting.up());
        ASSERT_TRUE(waiting.offer(kind, "c", event_of(1, "x")));
        ASSERT_TRUE(eventually([&] {
            link = waiting.driver().drive({true, true}, Clock::now() + 2s);
            return link.state == LinkState::down;
        }));
        EXPECT_EQ(link.reason, "the server closed the connection");
        EXPECT_FALSE(link.idle) << "an answer was owed";
    }
}

// What the kernel has not sent by then could arrive behind the next connection's question of what is there.
TEST(RedisFake, AConnectionEndsByAReset) {
    std::promise<void> offered;
    std::promise<int> end;
    Server server(after_login([&](Socket& socket) {
        offered.get_future().wait();
        errno = 0;
        socket.wait_for_end();
        end.set_value(errno);
    }));
    {
        Pump pump("redis://" + server.host().shown());
        ASSERT_TRUE(pump.up());
        for (int id = 1; id <= 100; ++id) ASSERT_TRUE(pump.offer("list", "l", event_of(id, "x")));
        pump.step();
    }
    offered.set_value();
    EXPECT_EQ(end.get_future().get(), ECONNRESET);
}

// What twemproxy does at a command that it does not know.
TEST(RedisFake, AProxyThatHangsUpWithinTheLoginIsNamed) {
    Server half([](Socket& socket) {
        receive_commands(socket, "SETNAME", 1);
        socket.send("+PONG\r\n");
    });
    Pump pump("redis://" + half.host().shown());
    ASSERT_TRUE(pump.down());
    EXPECT_EQ(pump.link().remedy, Remedy::fix_settings);
    EXPECT_NE(pump.link().reason.find("(twemproxy) is not supported"), std::string::npos) << pump.link().reason;

    Server gone([](Socket& socket) { receive_commands(socket, "SETNAME", 1); });
    Pump other("redis://" + gone.host().shown());
    ASSERT_TRUE(other.down());
    EXPECT_EQ(other.link().remedy, Remedy::retry) << "it may be ending";
}
