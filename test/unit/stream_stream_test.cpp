// What it is: tests of the byte stream over TCP and unix sockets, against servers in threads.
// Who calls it: make -C test/unit stream.
// Never: needs a network beyond loopback.
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <string>

#include "broker/stream/bytes.hpp"
#include "broker/stream/stream.hpp"
#include "stream_support.hpp"

using namespace eventbus;
using namespace eventbus::broker;
using namespace eventbus::test;
using namespace std::chrono_literals;

namespace {

bool drive_until(Stream& stream, const std::function<bool()>& met) {
    const auto end = Clock::now() + 20s;
    while (!met() && Clock::now() < end) stream.drive(wait_for(stream.interest(), 50ms));
    return met();
}

bool opens(Stream& stream) {
    return drive_until(stream, [&] { return stream.state() != Stream::State::connecting; }) &&
           stream.state() == Stream::State::open;
}

bool closes(Stream& stream) {
    return drive_until(stream, [&] { return stream.state() == Stream::State::closed; });
}

void echo(Socket& socket) {
    for (std::string bytes = socket.receive(); !bytes.empty(); bytes = socket.receive()) socket.send(bytes);
}

std::string noise(std::size_t length) {
    std::string bytes(length, '\0');
    std::uint32_t state = 1;
    for (char& c : bytes) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
    return bytes;
}

void expect_echo(Stream& stream, const std::string& bytes) {
    stream.write(bytes);
    EXPECT_GE(stream.unsent(), bytes.size());
    std::string back;
    ASSERT_TRUE(drive_until(stream, [&] {
        back += stream.inbox();
        stream.consume(stream.inbox().size());
        return back.size() >= bytes.size() || stream.state() == Stream::State::closed;
    })) << stream.error();
    EXPECT_TRUE(back == bytes);
    EXPECT_EQ(stream.unsent(), 0u);
    EXPECT_FALSE(stream.interest().write);
}

}  // namespace

TEST(Stream, EchoOverTcp) {
    Server server(echo);
    Stream stream(server.host(), {});
    ASSERT_TRUE(opens(stream)) << stream.error();
    expect_echo(stream, "hello");
    expect_echo(stream, noise(16 * 1024 * 1024));
    EXPECT_LE(stream.outbox().capacity(), kept_capacity);
    expect_echo(stream, std::string(3, '\0'));
}

// Drivers make one stream after the other; who waits keeps what it waits for as long as fd and number stay the same.
TEST(Stream, EachSocketHasANumberOfItsOwn) {
    Server server(echo);
    std::set<std::uint64_t> numbers;
    for (int i = 0; i < 3; ++i) {
        Stream stream(server.host(), {});
        ASSERT_TRUE(opens(stream)) << stream.error();
        const Interest begun = stream.interest();
        EXPECT_TRUE(numbers.insert(begun.number).second);
        expect_echo(stream, "hello");
        EXPECT_EQ(stream.interest().fd, begun.fd);
        EXPECT_EQ(stream.interest().number, begun.number);
    }
}

TEST(Stream, EchoOverAUnixSocket) {
    TempDir dir;
    Server server(echo, dir.file("s"));
    Stream stream(server.host(), {});
    ASSERT_TRUE(opens(stream)) << stream.error();
    expect_echo(stream, noise(1024 * 1024));
}

TEST(Stream, WrittenBeforeOpenIsSentAfterIt) {
    Server server(echo);
    Stream stream(server.host(), {});
    expect_echo(stream, "early");
}

TEST(Stream, NameLookUpInAThread) {
    Server server(echo);
    Stream stream({"localhost", server.host().port}, {});
    EXPECT_EQ(stream.state(), Stream::State::connecting);
    EXPECT_GE(stream.interest().fd, 0);
    // ::1 may come first and refuse: every address is tried.
    expect_echo(stream, "by name");
}

TEST(Stream, LookUpThreadTakesNoSignals) {
    static std::atomic<int> caught;
    caught = 0;
    struct sigaction before {
    }, now{};
    now.sa_handler = [](int) { ++caught; };
    sigaction(SIGUSR2, &now, &before);
    sigset_t usr2, old;
    sigemptyset(&usr2);
    sigaddset(&usr2, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &usr2, &old);
    Stream stream({"name.invalid", 1}, {});
    kill(getpid(), SIGUSR2);  // only a thread that does not block it could take it
    ASSERT_TRUE(closes(stream));
    EXPECT_EQ(caught, 0);
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    EXPECT_TRUE(sigismember(&mask, SIGUSR2));
    EXPECT_FALSE(sigismember(&mask, SIGUSR1));
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    EXPECT_EQ(caught, 1);
    sigaction(SIGUSR2, &before, nullptr);
}

TEST(Stream, UnknownName) {
    Stream stream({"no-such-host.invalid", 1}, {});
    ASSERT_TRUE(closes(stream));
    EXPECT_EQ(stream.error().find("could not resolve host name \"no-such-host.invalid\": "), 0u) << stream.error();
    EXPECT_GT(stream.error().size(), 56u);
    EXPECT_FALSE(stream.is_settings_error());
    EXPECT_EQ(stream.interest().fd, -1);
}

TEST(Stream, DestroyedWhileLookingUp) {
    for (int i = 0; i < 20; ++i) Stream({"no-such-host.invalid", 1}, {});
}

TEST(Stream, Refused) {
    const std::uint16_t port = free_port();
    Stream stream({"127.0.0.1", port}, {});
    ASSERT_TRUE(closes(stream));
    EXPECT_EQ(stream.error(), "could not connect to 127.0.0.1:" + std::to_string(port) + ": Connection refused");
    EXPECT_FALSE(stream.is_settings_error());

    Stream missing({"/nowhere/at/all.sock", 0}, {});
    EXPECT_EQ(missing.state(), Stream::State::closed);
    EXPECT_EQ(missing.error(), "could not connect to /nowhere/at/all.sock: No such file or directory");

    Stream v6({"::1", port}, {});
    ASSERT_TRUE(closes(v6));
    EXPECT_EQ(v6.error().find("could not connect to [::1]:"), 0u) << v6.error();

    Stream endless({"/" + std::string(200, 'x'), 0}, {});
    EXPECT_EQ(endless.error(), "the path of the unix socket is too long");
}

TEST(Stream, OrderlyCloseKeepsTheLastWords) {
    Server server([](Socket& socket) { socket.send("bye"); });
    Stream stream(server.host(), {});
    ASSERT_TRUE(closes(stream));
    EXPECT_EQ(stream.error(), "the server closed the connection");
    EXPECT_EQ(stream.inbox(), "bye");
    EXPECT_EQ(stream.interest().fd, -1);
    EXPECT_EQ(stream.unsent(), 0u);
}

TEST(Stream, WritingToADeadPeerRaisesNoSignal) {
    std::atomic<bool> gone = false;
    Server server([&](Socket& socket) {
        socket.receive(1);
        socket.reset();
        gone = true;
    });
    Stream stream(server.host(), {});
    ASSERT_TRUE(opens(stream));
    stream.write(noise(64));
    stream.flush();
    ASSERT_TRUE(eventually([&] { return gone.load(); }));
    for (int i = 0; i < 1000 && stream.state() == Stream::State::open; ++i) {
        stream.write("more");
        stream.drive({false, true});
    }
    EXPECT_EQ(stream.state(), Stream::State::closed);
    EXPECT_EQ(stream.error(), "lost the connection to the server: Connection reset by peer");
}

TEST(Stream, SpuriousReadiness) {
    Server server([](Socket& socket) {
        socket.receive();
        socket.send("ok");
        socket.wait_for_end();
    });
    Stream stream(server.host(), {});
    for (int i = 0; i < 100; ++i) stream.drive({true, true});
    ASSERT_TRUE(opens(stream));
    for (int i = 0; i < 100; ++i) EXPECT_EQ(stream.drive({true, true}), Stream::State::open);
    stream.write("x");
    ASSERT_TRUE(drive_until(stream, [&] { return stream.inbox() == "ok"; }));
}

TEST(Stream, ReadsAreBoundedADrive) {
    const std::string bytes = noise(4 * 1024 * 1024);
    Server server([&](Socket& socket) {
        socket.send(bytes);
        socket.wait_for_end();
    });
    Stream stream(server.host(), {});
    ASSERT_TRUE(opens(stream));
    std::size_t before = 0;
    while (before < bytes.size()) {
        stream.drive(wait_for(stream.interest(), 10s));
        ASSERT_EQ(stream.state(), Stream::State::open);
        ASSERT_LE(stream.inbox().size() - before, 256u * 1024 + 64 * 1024);
        before = stream.inbox().size();
    }
    EXPECT_TRUE(stream.inbox() == bytes);
}

TEST(Stream, AFullPeerDoesNotBlock) {
    std::atomic<bool> go = false;
    std::atomic<std::size_t> got = 0;
    Server server([&](Socket& socket) {
        eventually([&] { return go.load(); });
        for (std::string bytes = socket.receive(); !bytes.empty(); bytes = socket.receive()) got += bytes.size();
    });
    Stream stream(server.host(), {});
    ASSERT_TRUE(opens(stream));
    const std::string bytes = noise(32 * 1024 * 1024);
    stream.write(bytes);
    for (int i = 0; i < 50; ++i) stream.drive({true, true});
    EXPECT_GT(stream.unsent(), 0u);
    EXPECT_TRUE(stream.interest().write);
    go = true;
    ASSERT_TRUE(drive_until(stream, [&] { return stream.unsent() == 0; }));
    stream.close("enough");
    EXPECT_EQ(stream.error(), "enough");
    EXPECT_TRUE(eventually([&] { return got == bytes.size(); }));
}

// What the kernel has taken and the peer has not continues its way after close(), unless it is dropped.
TEST(Stream, WhatIsUnsentAtCloseCanBeDropped) {
    for (const bool drop : {false, true}) {
        std::atomic<bool> go = false, over = false;
        std::atomic<std::size_t> got = 0;
        Server server([&](Socket& socket) {
            eventually([&] { return go.load(); });
            for (std::string bytes = socket.receive(); !bytes.empty(); bytes = socket.receive()) got += bytes.size();
            over = true;
        });
        Stream stream(server.host(), {});
        if (drop) stream.drop_unsent_at_close();
        ASSERT_TRUE(opens(stream));
        stream.write(noise(32 * 1024 * 1024));
        for (int i = 0; i < 50; ++i) stream.drive({false, true});
        const std::size_t taken = 32 * 1024 * 1024 - stream.unsent();
        ASSERT_GT(stream.unsent(), 0u);
        stream.close("enough");
        go = true;
        ASSERT_TRUE(eventually([&] { return over.load(); }));
        if (drop)
            EXPECT_LT(got, taken);
        else
            EXPECT_EQ(got, taken);
    }
}

TEST(Bytes, KeepsOrderAndGivesMemoryBack) {
    Bytes bytes;
    std::string expected;
    const std::string source = noise(1 << 20);
    std::size_t at = 0, step = 1;
    for (int i = 0; i < 3000; ++i) {
        step = (step * 7919 + 13) % 5000;
        const std::size_t length = std::min(step, source.size() - at);
        std::memcpy(bytes.room(length), source.data() + at, length);
        bytes.commit(length);
        expected.append(source, at, length);
        at = (at + length) % source.size();
        const std::size_t eaten = (step * 31) % (expected.size() + 1) % 4000;
        bytes.consume(eaten);
        expected.erase(0, eaten);
        ASSERT_TRUE(bytes.view() == expected);
    }
    bytes.consume(bytes.size() + 5);
    EXPECT_TRUE(bytes.empty());
}
