// What it is: host names made into socket addresses; see resolver.hpp.
// Who calls it: the stream.
// Never: lets a signal into its thread, which belongs to the process around us.
#include "broker/stream/resolver.hpp"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <system_error>
#include <thread>

namespace eventbus::broker {

struct Lookup::Shared {
    ~Shared() {
        if (fd >= 0) close(fd);
    }
    void finish() {
        finished.store(true, std::memory_order_release);
        const std::uint64_t one = 1;
        if (fd >= 0 && ::write(fd, &one, sizeof one) < 0) return;  // it cannot be full
    }
    // The flags decide whether this may block. Returns getaddrinfo's code.
    int ask(int flags);

    Host host;
    int fd = -1;
    std::atomic<bool> finished{false};
    std::vector<Address> addresses;
    std::string error;
};

int Lookup::Shared::ask(int flags) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    const int code = getaddrinfo(host.name.c_str(), std::to_string(host.port).c_str(), &hints, &found);
    if (code != 0) {
        const int why = errno;
        error = "could not resolve host name \"" + host.name +
                "\": " + (code == EAI_SYSTEM ? std::generic_category().message(why) : gai_strerror(code));
        return code;
    }
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
    for (const addrinfo* at = found; at; at = at->ai_next) {
        Address address;
        std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
        address.length = at->ai_addrlen;
        addresses.push_back(address);
    }
    return 0;
}

Lookup::Lookup(const Host& host) : shared_(std::make_shared<Shared>()) {
    shared_->host = host;
    if (host.is_unix()) {
        Address address;
        auto* path = reinterpret_cast<sockaddr_un*>(&address.storage);
        if (host.name.size() >= sizeof path->sun_path) {
            shared_->error = "the path of the unix socket is too long";
        } else {
            path->sun_family = AF_UNIX;
            std::memcpy(path->sun_path, host.name.c_str(), host.name.size() + 1);
            address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + host.name.size() + 1);
            shared_->addresses.push_back(address);
        }
        shared_->finish();
        return;
    }
    if (shared_->ask(AI_NUMERICHOST) == 0) {
        shared_->finish();
        return;
    }
    shared_->error.clear();
    shared_->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (shared_->fd < 0) {
        shared_->error = "could not create an eventfd: " + std::generic_category().message(errno);
        shared_->finish();
        return;
    }
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        std::thread([shared = shared_] {
            try {
                shared->ask(0);
            } catch (const std::exception&) {
                shared->addresses.clear();
            }
            shared->finish();
        }).detach();
    } catch (const std::exception& error) {
        shared_->error = std::string("could not start a thread: ") + error.what();
        shared_->finish();
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

int Lookup::fd() const {
    return shared_->fd;
}
bool Lookup::finished() const {
    return shared_->finished.load(std::memory_order_acquire);
}
const std::vector<Address>& Lookup::addresses() const {
    return shared_->addresses;
}
const std::string& Lookup::error() const {
    return shared_->error;
}

std::string Address::shown() const {
    if (storage.ss_family == AF_UNIX) return reinterpret_cast<const sockaddr_un*>(&storage)->sun_path;
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    if (getnameinfo(get(), length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return "an unknown address";
    return storage.ss_family == AF_INET6 ? std::string("[") + host + "]:" + port : std::string(host) + ":" + port;
}

}  // namespace eventbus::broker
