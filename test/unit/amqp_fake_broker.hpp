// What it is: an AMQP broker in a thread that plays a script, one peer a connection.
// Who calls it: amqp_driver_test.cpp.
// Never: waits longer than ten seconds for anything.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "amqp_frame_reader.hpp"
#include "broker/amqp/frame.hpp"

namespace eventbus::broker::amqp {

struct Published {
    std::uint16_t channel = 0;
    std::string exchange;
    std::string routing_key;
    bool mandatory = false;
    std::string message_id;
    std::string header_payload;  // as it came, to send it back
    std::string body;
    std::size_t body_frames = 0;
};

// The broker's end of one connection. What does not come in time throws, and fails the test.
class Peer {
 public:
    explicit Peer(int fd) : fd_(fd) {
        const int yes = 1;
        ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    }
    ~Peer() { ::close(fd_); }

    void send(std::string_view bytes) {
        while (!bytes.empty()) {
            const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (sent < 0) throw std::runtime_error("the driver is gone");
            bytes.remove_prefix(static_cast<std::size_t>(sent));
        }
    }
    template <typename Fields>
    std::string bytes_of(std::uint16_t channel, amqp_method_number_t id, const Fields& fields) {
        std::string out;
        EXPECT_TRUE(writer_.method(out, channel, id, &fields));
        return out;
    }
    template <typename Fields>
    void method(std::uint16_t channel, amqp_method_number_t id, const Fields& fields) {
        send(bytes_of(channel, id, fields));
    }

    void read_protocol_header() {
        while (inbox_.size() < 8) receive();
        EXPECT_EQ(inbox_.substr(0, 8), std::string("AMQP\0\0\x09\x01", 8));
        inbox_.erase(0, 8);
    }
    // The next frame but heartbeats; its bytes are valid until the next call.
    Frame frame(bool heartbeats = false) {
        while (true) {
            inbox_.erase(0, last_frame_);
            last_frame_ = 0;
            Frame frame;
            while (read_frame(inbox_, most_frame_max, frame) == Framing::partial) receive();
            last_frame_ = frame.size;
            if (frame.size == 0) throw std::runtime_error("malformed frame from the driver");
            if (heartbeats || frame.type != AMQP_FRAME_HEARTBEAT) return frame;
        }
    }
    static amqp_method_number_t method_of(const Frame& frame) {
        amqp_method_number_t id = 0;
        for (const char byte : frame.payload.substr(0, 4)) id = id << 8 | static_cast<unsigned char>(byte);
        return frame.type == AMQP_FRAME_METHOD ? id : 0;
    }
    void raw(std::uint8_t type, std::uint16_t channel, std::string_view payload) {
        std::string out;
        for (const int byte : {int{type}, channel >> 8, channel & 0xff}) out.push_back(static_cast<char>(byte));
        for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(payload.size() >> shift));
        send(out.append(payload) + "\xce");
    }
    FrameReader::Method expect(amqp_method_number_t id, std::uint16_t* channel = nullptr) {
        const Frame got = frame();
        const FrameReader::Method method = reader_.method(got.payload);
        if (got.type != AMQP_FRAME_METHOD || method.id != id)
            throw std::runtime_error(std::string("expected ") + amqp_method_name(id) + ", got " +
                                     (got.type == AMQP_FRAME_METHOD ? amqp_method_name(method.id) : "content"));
        if (channel) *channel = got.channel;
        return method;
    }

    std::string start_bytes(const char* mechanisms = "PLAIN AMQPLAIN") {
        amqp_connection_start_t start{};
        start.version_minor = 9;
        start.mechanisms = amqp_cstring_bytes(mechanisms);
        start.locales = amqp_cstring_bytes("en_US");
        return bytes_of(0, AMQP_CONNECTION_START_METHOD, start);
    }
    void login(std::uint32_t frame_max = 131072, std::uint16_t heartbeat = 60, std::uint16_t channel_max = 2047) {
        read_protocol_header();
        send(start_bytes());
        expect(AMQP_CONNECTION_START_OK_METHOD);
        method(0, AMQP_CONNECTION_TUNE_METHOD, amqp_connection_tune_t{channel_max, frame_max, heartbeat});
        expect(AMQP_CONNECTION_TUNE_OK_METHOD);
        expect(AMQP_CONNECTION_OPEN_METHOD);
        method(0, AMQP_CONNECTION_OPEN_OK_METHOD, amqp_connection_open_ok_t{});
    }
    std::uint16_t channel() {
        std::uint16_t number = 0;
        expect(AMQP_CHANNEL_OPEN_METHOD, &number);
        expect(AMQP_CONFIRM_SELECT_METHOD);
        method(number, AMQP_CHANNEL_OPEN_OK_METHOD, amqp_channel_open_ok_t{});
        method(number, AMQP_CONFIRM_SELECT_OK_METHOD, amqp_confirm_select_ok_t{});
        return number;
    }
    Published published() {
        Published got;
        const auto method = expect(AMQP_BASIC_PUBLISH_METHOD, &got.channel);
        const auto& publish = method.as<amqp_basic_publish_t>();
        got.exchange = to_view(publish.exchange);
        got.routing_key = to_view(publish.routing_key);
        got.mandatory = publish.mandatory;
        got.header_payload = frame().payload;
        const auto header = reader_.header(got.header_payload);
        got.message_id = to_view(header.properties->message_id);
        while (got.body.size() < header.body_size) {
            got.body += frame().payload;
            ++got.body_frames;
        }
        reader_.release();
        return got;
    }

    void ack(std::uint16_t channel, std::uint64_t tag, bool multiple = false) {
        method(channel, AMQP_BASIC_ACK_METHOD, amqp_basic_ack_t{tag, multiple});
    }
    void nack(std::uint16_t channel, std::uint64_t tag, bool multiple = false) {
        method(channel, AMQP_BASIC_NACK_METHOD, amqp_basic_nack_t{tag, multiple, 0});
    }
    std::string header_without_id(std::size_t body_size) {
        std::string out;
        EXPECT_TRUE(writer_.header(out, 1, amqp_basic_properties_t{}, body_size));
        return out.substr(7, out.size() - frame_overhead);
    }
    void give_back(const Published& message, std::uint16_t code = 312, const std::string& text = "NO_ROUTE") {
        amqp_basic_return_t returned{};
        returned.reply_code = code;
        returned.reply_text = to_bytes(text);
        returned.exchange = to_bytes(message.exchange);
        returned.routing_key = to_bytes(message.routing_key);
        std::string out = bytes_of(message.channel, AMQP_BASIC_RETURN_METHOD, returned);
        const auto header = reader_.header(message.header_payload);
        EXPECT_TRUE(writer_.header(out, message.channel, *header.properties, message.body.size()));
        writer_.body(out, message.channel, message.body);
        send(out);
    }
    void close_channel(std::uint16_t channel, std::uint16_t code, const std::string& text) {
        method(channel, AMQP_CHANNEL_CLOSE_METHOD, amqp_channel_close_t{code, to_bytes(text), 60, 40});
        expect(AMQP_CHANNEL_CLOSE_OK_METHOD);
    }
    void close_connection(std::uint16_t code, const std::string& text) {
        method(0, AMQP_CONNECTION_CLOSE_METHOD, amqp_connection_close_t{code, to_bytes(text), 0, 0});
        expect(AMQP_CONNECTION_CLOSE_OK_METHOD);
    }
    // Reads until the driver goes.
    void wait_for_end() {
        try {
            while (true) receive();
        } catch (const std::runtime_error&) {
        }
    }

 private:
    void receive() {
        pollfd fd{fd_, POLLIN, 0};
        if (::poll(&fd, 1, 10000) <= 0) throw std::runtime_error("nothing came from the driver");
        char room[65536];
        const ssize_t got = ::recv(fd_, room, sizeof room, 0);
        if (got <= 0) throw std::runtime_error("the driver has closed the connection");
        inbox_.append(room, static_cast<std::size_t>(got));
    }

    int fd_;
    std::string inbox_;
    std::size_t last_frame_ = 0;
    FrameReader reader_;
    FrameWriter writer_;
};

class FakeBroker {
 public:
    using Script = std::function<void(Peer&)>;

    explicit FakeBroker(Script script) : FakeBroker(std::vector<Script>{std::move(script)}) {}
    // One script a connection, one after the other.
    explicit FakeBroker(std::vector<Script> scripts) : scripts_(std::move(scripts)) {
        listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof address;
        if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 || ::listen(listener_, 4) != 0 ||
            ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0)
            throw std::runtime_error("no port for the fake broker");
        port_ = ntohs(address.sin_port);
        thread_ = std::thread([this] { play(); });
    }
    ~FakeBroker() { finish(); }
    std::uint16_t port() const { return port_; }
    bool done() const { return done_; }
    void finish() {  // waits for the script's end
        if (thread_.joinable()) thread_.join();
        if (listener_ >= 0) ::close(listener_);
        listener_ = -1;
    }

 private:
    void play() {
        for (const Script& script : scripts_) {
            pollfd fd{listener_, POLLIN, 0};
            if (::poll(&fd, 1, 10000) <= 0) {
                ADD_FAILURE() << "nobody connected to the fake broker";
                return;
            }
            Peer peer(::accept(listener_, nullptr, nullptr));
            try {
                script(peer);
            } catch (const std::exception& problem) {
                ADD_FAILURE() << "the script stopped: " << problem.what();
            }
        }
        done_ = true;
    }

    std::vector<Script> scripts_;
    int listener_ = -1;
    std::uint16_t port_ = 0;
    std::thread thread_;
    std::atomic<bool> done_ = false;
};

}  // namespace eventbus::broker::amqp
