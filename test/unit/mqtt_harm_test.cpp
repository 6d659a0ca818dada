// What it is: the MQTT driver against a broker that means harm, by TCP and by WebSocket.
// Who calls it: make -C test/unit mqtt.
// Never: needs a real broker.
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/sha.h>

#include "broker/stream/stream.hpp"
#include "mqtt_support.hpp"

using namespace eventbus;
using namespace eventbus::test;

namespace {

// The server's end of a WebSocket's handshake.
void agree(Socket& socket) {
    std::string request;
    while (request.find("\r\n\r\n") == std::string::npos) {
        const std::string more = socket.receive();
        if (more.empty()) return;
        request += more;
    }
    const std::string name = "Sec-WebSocket-Key: ";
    const std::string salted =
        request.substr(request.find(name) + name.size(), 24) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char digest[SHA_DIGEST_LENGTH];
    SHA1(reinterpret_cast<const unsigned char*>(salted.data()), salted.size(), digest);
    char base64[64];
    EVP_EncodeBlock(reinterpret_cast<unsigned char*>(base64), digest, sizeof digest);
    socket.send(std::string("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ") + base64 +
                "\r\n\r\n");
}

// Says something for ever, and reads nothing.
void go_on(Socket& socket, const std::string& words) {
    std::string many;
    while (many.size() < 1 << 20) many += words;
    while (socket.send(many)) {
    }
}

std::string reason_of_end(const Server& server, const std::string& scheme) {
    Pump pump(mqtt_settings(scheme + "://" + server.host().shown()));
    EXPECT_TRUE(pump.down());
    return pump.link.reason;
}

constexpr std::string_view up("\x82\x05\x20\x03\0\0\0", 7);  // a CONNACK in a frame

}  // namespace

TEST(MqttHarm, PubrecForEverWhileNobodyReads) {
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        const Published got = peer.published();
        std::string many;
        while (many.size() < 1 << 20) many += std::string("\x50\x02\0", 3) + static_cast<char>(got.id);
        for (;;) peer.send(many);
    }});
    Pump pump(mqtt_settings(broker.url()));
    ASSERT_TRUE(pump.up()) << pump.link.reason;
    ASSERT_TRUE(pump.offer(1, event_of(1), "t", 2));
    ASSERT_TRUE(pump.down());
    EXPECT_EQ(pump.link.reason, Stream::reads_no_answers);
    expect_settled(pump, 1, Verdict::unknown, Remedy::retry, Stream::reads_no_answers);
}

TEST(MqttHarm, PingsForEverWhileNobodyReads) {
    Server server([](Socket& socket) {
        agree(socket);
        socket.send(std::string(up));
        go_on(socket, std::string("\x89\x7d", 2) + std::string(125, 'p'));
    });
    EXPECT_EQ(reason_of_end(server, "ws"), Stream::reads_no_answers);
}

TEST(MqttHarm, ControlFramesAreShortAndWhole) {
    for (const std::string& frame :
         {std::string("\x89\x7e\0\x7e", 4) + std::string(126, 'p'), std::string("\x89\x7f\0\0\0\0\0\x0f\0\0", 10),
          std::string("\x09\x00", 2), std::string("\x8a\x7e\0\x7e", 4), std::string("\x8b\x7f", 2)}) {
        Server server([&](Socket& socket) {
            agree(socket);
            socket.send(std::string(up) + frame);
            socket.wait_for_end();
        });
        EXPECT_EQ(reason_of_end(server, "ws"), "the server sent a malformed WebSocket frame");
    }
    Server server([](Socket& socket) {
        agree(socket);
        socket.send(std::string(up) + std::string("\x89\x7d", 2) + std::string(125, 'p'));
        socket.wait_for_end();
    });
    Pump pump(mqtt_settings("ws://" + server.host().shown()));
    EXPECT_TRUE(pump.up()) << pump.link.reason;
}

TEST(MqttHarm, AHandshakeWithoutEnd) {
    Server server([](Socket& socket) {
        socket.receive();
        socket.send("HTTP/1.1 101 Switching\r\n");
        go_on(socket, "X-Header: value\r\n");
    });
    EXPECT_EQ(reason_of_end(server, "ws"), "the server does not speak HTTP");
}

TEST(MqttHarm, NoWordsOfABrokerShowThePassword) {
    const auto ends_with = [](const std::string& words) {
        return FakeBroker::Script([words](Peer& peer) {
            peer.login();
            const std::string text = std::string("\x1f\0", 2) + static_cast<char>(words.size()) + words;
            peer.send(std::string("\xe0") + static_cast<char>(text.size() + 2) + '\x8b' +
                      static_cast<char>(text.size()) + text);
            peer.wait_for_end();
        });
    };
    for (const char* words : {"no s3cr3t-pass", "no czNjcjN0LXBhc3M=", "no s3cr3t-p"}) {
        FakeBroker broker({ends_with(words)});
        std::string url = broker.url();
        url.insert(url.find("//") + 2, "app:s3cr3t-pass@");
        Pump pump(mqtt_settings(url));
        ASSERT_TRUE(pump.down());
        EXPECT_NE(pump.link.reason.find(": no ***"), std::string::npos) << pump.link.reason;
    }
    FakeBroker broker({[](Peer& peer) {
        peer.login();
        const Published got = peer.published();
        peer.answer(puback, got.id, 0x87, "app may not, with s3cr3t-pass");
        peer.wait_for_end();
    }});
    std::string url = broker.url();
    url.insert(url.find("//") + 2, "app:s3cr3t-pass@");
    Pump pump(mqtt_settings(url));
    ASSERT_TRUE(pump.up()) << pump.link.reason;
    ASSERT_TRUE(pump.offer(1, event_of(1)));
    ASSERT_TRUE(pump.settles(1));
    EXPECT_NE(pump.settled[1].reason.find("may not, with ***"), std::string::npos) << pump.settled[1].reason;
}
