// What it is: a private RabbitMQ node, and rabbitmq-c's own blocking client as an independent reader.
// Who calls it: amqp_rabbitmq_test.cpp.
// Never: uses a default port or directory, or leaves a process behind.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "broker/amqp/codec.hpp"

#if __has_include(<rabbitmq-c/tcp_socket.h>)
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp_tcp_socket.h>
#endif

namespace eventbus::broker::amqp {

class Node {
 public:
    Node() : ports_(free_ports(3)) {
        char room[] = "/tmp/eventbus-amqp-XXXXXX";
        home_ = ::mkdtemp(room);
        std::ofstream(home_ + "/enabled_plugins") << "[].\n";
        std::ofstream(home_ + "/rabbitmq.conf") << "listeners.tcp.1 = 127.0.0.1:" << port() << "\n";
        const std::string epmd_port = std::to_string(ports_[1]);
        epmd_ = spawn({"/usr/bin/epmd", "-address", "127.0.0.1", "-port", epmd_port});
        server_ = spawn({"/usr/lib/rabbitmq/bin/rabbitmq-server"},
                        {"HOME=" + home_, "PATH=/usr/bin:/bin", "LANG=C.UTF-8",
                         "RABBITMQ_NODENAME=eventbus" + std::to_string(port()) + "@localhost",
                         "RABBITMQ_DIST_PORT=" + std::to_string(ports_[2]), "ERL_EPMD_PORT=" + epmd_port,
                         "RABBITMQ_MNESIA_BASE=" + home_ + "/data", "RABBITMQ_LOG_BASE=" + home_ + "/log",
                         "RABBITMQ_CONFIG_FILE=" + home_ + "/rabbitmq.conf",
                         "RABBITMQ_ENABLED_PLUGINS_FILE=" + home_ + "/enabled_plugins",
                         "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}"});
    }
    ~Node() {
        for (const pid_t pid : {server_, epmd_}) end(pid);
        std::error_code ignored;
        std::filesystem::remove_all(home_, ignored);
    }
    Node(const Node&) = delete;
    Node& operator=(const Node&) = delete;

    std::uint16_t port() const { return ports_[0]; }

 private:
    static std::vector<std::uint16_t> free_ports(int count) {
        std::vector<std::uint16_t> ports;
        std::vector<int> sockets;
        for (int i = 0; i < count; ++i) {
            sockets.push_back(::socket(AF_INET, SOCK_STREAM, 0));
            sockaddr_in address{};
            address.sin_family = AF_INET;
            address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            socklen_t length = sizeof address;
            ::bind(sockets.back(), reinterpret_cast<sockaddr*>(&address), length);
            ::getsockname(sockets.back(), reinterpret_cast<sockaddr*>(&address), &length);
            ports.push_back(ntohs(address.sin_port));
        }
        for (const int each : sockets) ::close(each);
        return ports;
    }
    // A child in a process group of its own that ends with us.
    pid_t spawn(std::vector<std::string> command, std::vector<std::string> environment = {}) {
        const auto pointers = [](std::vector<std::string>& texts) {
            std::vector<char*> out;
            for (std::string& text : texts) out.push_back(text.data());
            out.push_back(nullptr);
            return out;
        };
        const auto arguments = pointers(command);
        const auto variables = pointers(environment);
        const std::string log = home_ + "/output";
        const pid_t pid = ::fork();
        if (pid != 0) return pid;
        ::setpgid(0, 0);
        ::prctl(PR_SET_PDEATHSIG, SIGTERM);
        const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
        ::dup2(::open("/dev/null", O_RDONLY), 0);
        ::dup2(out, 1);
        ::dup2(out, 2);
        ::execve(arguments[0], arguments.data(), variables.data());
        ::_exit(127);
    }
    static void end(pid_t pid) {
        ::kill(-pid, SIGTERM);
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
        while (::waitpid(pid, nullptr, WNOHANG) == 0) {
            if (std::chrono::steady_clock::now() > deadline) {
                ::kill(-pid, SIGKILL);
                ::waitpid(pid, nullptr, 0);
                return;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
    }

    std::vector<std::uint16_t> ports_;
    std::string home_;
    pid_t epmd_ = -1;
    pid_t server_ = -1;
};

// rabbitmq-c as its makers meant it.
class Reader {
 public:
    explicit Reader(std::uint16_t port) : connection_(amqp_new_connection()) {
        amqp_socket_t* socket = amqp_tcp_socket_new(connection_);
        timeval timeout{1, 0};
        ok_ = amqp_socket_open_noblock(socket, "127.0.0.1", port, &timeout) == AMQP_STATUS_OK &&
              amqp_login(connection_, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest").reply_type ==
                  AMQP_RESPONSE_NORMAL &&
              amqp_channel_open(connection_, 1) != nullptr;
    }
    ~Reader() {
        amqp_destroy_message(&last_);
        amqp_destroy_connection(connection_);
    }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    bool ok() const { return ok_; }
    void exchange(const char* name, const char* type = "topic") {
        amqp_exchange_declare(connection_, 1, amqp_cstring_bytes(name), amqp_cstring_bytes(type), 0, 1, 0, 0,
                              amqp_empty_table);
        check();
    }
    // Returns how many messages it holds.
    std::uint32_t queue(const char* name, amqp_table_t arguments = amqp_empty_table) {
        const auto* ok = amqp_queue_declare(connection_, 1, amqp_cstring_bytes(name), 0, 1, 0, 0, arguments);
        check();
        return ok ? ok->message_count : 0;
    }
    void bind(const char* queue, const char* exchange, const char* key) {
        amqp_queue_bind(connection_, 1, amqp_cstring_bytes(queue), amqp_cstring_bytes(exchange),
                        amqp_cstring_bytes(key), amqp_empty_table);
        check();
    }

    struct Message {
        bool got = false;
        std::string exchange;
        std::string routing_key;
        std::string body;
        amqp_basic_properties_t properties{};  // valid until the next get()
    };
    Message get(const char* queue) {
        Message message;
        amqp_maybe_release_buffers(connection_);
        const amqp_rpc_reply_t reply = amqp_basic_get(connection_, 1, amqp_cstring_bytes(queue), 1);
        if (reply.reply_type != AMQP_RESPONSE_NORMAL || reply.reply.id != AMQP_BASIC_GET_OK_METHOD) return message;
        const auto* ok = static_cast<amqp_basic_get_ok_t*>(reply.reply.decoded);
        message.exchange.assign(static_cast<char*>(ok->exchange.bytes), ok->exchange.len);
        message.routing_key.assign(static_cast<char*>(ok->routing_key.bytes), ok->routing_key.len);
        amqp_destroy_message(&last_);
        message.got = amqp_read_message(connection_, 1, &last_, 0).reply_type == AMQP_RESPONSE_NORMAL;
        message.body.assign(static_cast<char*>(last_.body.bytes), last_.body.len);
        message.properties = last_.properties;
        return message;
    }

 private:
    void check() {
        EXPECT_EQ(amqp_get_rpc_reply(connection_).reply_type, AMQP_RESPONSE_NORMAL) << "the reader's own request";
    }

    amqp_connection_state_t connection_;
    amqp_message_t last_{};
    bool ok_ = false;
};

}  // namespace eventbus::broker::amqp
