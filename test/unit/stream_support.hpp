// What it is: what tests of connections share: temporary directories, certificates, children, servers in threads.
// Who calls it: stream_*_test.cpp, redis_*_test.cpp.
// Never: uses a default port, or ends a process that it did not start.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "broker/driver.hpp"

namespace eventbus::test {

using broker::Clock;
using broker::Interest;
using broker::Ready;

class TempDir {
 public:
    TempDir() {
        char name[] = "/tmp/eventbus_unit_XXXXXX";
        path_ = mkdtemp(name);
    }
    ~TempDir() { std::filesystem::remove_all(path_); }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    std::string file(const std::string& name) const { return path_ + "/" + name; }
    const std::string& path() const { return path_; }

 private:
    std::string path_;
};

inline void run(const std::string& command) {
    ASSERT_EQ(std::system((command + " >/dev/null 2>&1").c_str()), 0) << command;
}

// ca.pem signs server.pem/server.key (localhost, 127.0.0.1) and client.pem/client.key, and of localhost by its common
// name alone cn.pem; empty.crl and revoked.crl are its lists. other_ca.pem signs nothing.
inline void make_certificates(const TempDir& dir) {
    const std::string in = "cd " + dir.path() + " && ";
    const std::string key = " -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes ";
    for (const std::string ca : {"ca", "other_ca"})
        run(in + "openssl req -x509 -days 2 -subj /CN=" + ca + key + "-keyout " + ca + ".key -out " + ca + ".pem");
    std::ofstream(dir.file("san")) << "subjectAltName=DNS:localhost,IP:127.0.0.1\n";
    for (const std::string who : {"server", "client"}) {
        run(in + "openssl req -subj /CN=" + who + key + "-keyout " + who + ".key -out " + who + ".csr");
        run(in + "openssl x509 -req -days 2 -in " + who +
            ".csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile san -out " + who + ".pem");
    }
    // The name where it used to stand; with the key of "server".
    run(in + "openssl req -subj /CN=localhost -new -key server.key -out cn.csr");
    run(in + "openssl x509 -req -days 2 -in cn.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cn.pem");
    // Lists: of nothing, and of the server's certificate.
    std::ofstream(dir.file("index.txt"));
    std::ofstream(dir.file("ca.cnf")) << "[ca]\ndefault_ca=one\n[one]\ndatabase=index.txt\ndefault_md=sha256\n"
                                         "default_crl_days=2\n";
    const std::string ca = in + "openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem ";
    run(ca + "-gencrl -out empty.crl");
    run(ca + "-revoke server.pem");
    run(ca + "-gencrl -out revoked.crl");
}

// Waits for one interest; returns what is ready, nothing after the time is over.
inline Ready wait_for(const Interest& interest, std::chrono::milliseconds most) {
    pollfd waiting{interest.fd, static_cast<short>((interest.read ? POLLIN : 0) | (interest.write ? POLLOUT : 0)), 0};
    if (poll(&waiting, 1, static_cast<int>(most.count())) <= 0) return {};
    const bool broken = (waiting.revents & (POLLERR | POLLHUP)) != 0;
    return {(waiting.revents & POLLIN) != 0 || broken, (waiting.revents & POLLOUT) != 0 || broken};
}

inline bool eventually(const std::function<bool()>& met, std::chrono::milliseconds most = std::chrono::seconds(20)) {
    const auto end = Clock::now() + most;
    while (!met()) {
        if (Clock::now() > end) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

class Socket {
 public:
    explicit Socket(int fd = -1) : fd_(fd) {}
    ~Socket() { close(); }
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    int fd() const { return fd_; }
    void close() {
        if (fd_ >= 0) ::close(fd_);
        fd_ = -1;
    }
    bool send(std::string_view bytes) const {
        while (!bytes.empty()) {
            const ssize_t put = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (put <= 0) return false;
            bytes.remove_prefix(static_cast<std::size_t>(put));
        }
        return true;
    }
    // What came; empty at the end of the connection.
    std::string receive(std::size_t most = 65536) const {
        std::string bytes(most, '\0');
        const ssize_t got = ::recv(fd_, bytes.data(), most, 0);
        bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
        return bytes;
    }
    // The peer's end, or nothing for a while.
    void wait_for_end() const {
        while (!receive().empty()) {
        }
    }
    // Closes with a reset instead of an orderly end.
    void reset() {
        const linger hard{1, 0};
        setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close();
    }

 private:
    int fd_;
};

// Accepts on a loopback port, or on a unix socket, and serves each connection by the script, one after another.
class Server {
 public:
    using Script = std::function<void(Socket&)>;
    explicit Server(Script script, const std::string& unix_path = {}) {
        if (unix_path.empty()) {
            listener_ = socket(AF_INET, SOCK_STREAM, 0);
            sockaddr_in at{};
            at.sin_family = AF_INET;
            at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            socklen_t length = sizeof at;
            EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&at), length), 0);
            EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &length), 0);
            host_ = {"127.0.0.1", ntohs(at.sin_port)};
        } else {
            listener_ = socket(AF_UNIX, SOCK_STREAM, 0);
            sockaddr_un at{};
            at.sun_family = AF_UNIX;
            std::strncpy(at.sun_path, unix_path.c_str(), sizeof at.sun_path - 1);
            EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
            host_ = {unix_path, 0};
        }
        EXPECT_EQ(listen(listener_, 16), 0);
        thread_ = std::thread([this, script = std::move(script)] {
            sigset_t pipe;
            sigemptyset(&pipe);
            sigaddset(&pipe, SIGPIPE);
            pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
            for (;;) {
                const int fd = accept(listener_, nullptr, nullptr);
                if (fd < 0) return;
                const timeval patience{20, 0};
                setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
                setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
                Socket connection(fd);
                script(connection);
            }
        });
    }
    ~Server() {
        shutdown(listener_, SHUT_RDWR);
        thread_.join();
        ::close(listener_);
    }
    const Host& host() const { return host_; }

 private:
    int listener_ = -1;
    Host host_;
    std::thread thread_;
};

// A port that nobody listens on just now, another one at each call. It is below the range of which the kernel takes
// those of outgoing connections and of bind(0): one of other processes could sit on it until a server of ours is there.
inline std::uint16_t free_port() {
    static std::mt19937 lot{std::random_device{}()};
    static std::set<std::uint16_t> handed_out;
    for (;;) {
        const auto port = static_cast<std::uint16_t>(std::uniform_int_distribution<int>(10000, 19999)(lot));
        const Socket probe(socket(AF_INET, SOCK_STREAM, 0));
        sockaddr_in at{};
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_ANY);
        at.sin_port = htons(port);
        if (bind(probe.fd(), reinterpret_cast<sockaddr*>(&at), sizeof at) == 0 && handed_out.insert(port).second)
            return port;
    }
}

// A program of our own, ended by its pid.
class Child {
 public:
    explicit Child(const std::vector<std::string>& words) {
        std::vector<char*> arguments;
        for (const auto& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
        arguments.push_back(nullptr);
        pid_ = fork();
        if (pid_ == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that crashes leaves nothing behind
            execvp(arguments[0], arguments.data());
            _exit(127);
        }
    }
    ~Child() {
        if (is_gone()) return;
        signal(SIGCONT);
        signal(SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    void signal(int number) const {
        if (pid_ > 0) kill(pid_, number);
    }
    // Whether it has ended by itself.
    bool is_gone() {
        if (pid_ > 0 && waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = 0;
        return pid_ <= 0;
    }

 private:
    pid_t pid_;  // 0: ended
};

}  // namespace eventbus::test
