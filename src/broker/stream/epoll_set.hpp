// What it is: any number of descriptors to wait on, behind one: that of an epoll instance.
// Who calls it: drivers with more than one connection, or with a library's descriptors (rule 10 in broker/driver.hpp).
// Never: waits, or visits a descriptor that is not ready.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "broker/driver.hpp"

namespace eventbus::broker {

class EpollSet {
 public:
    EpollSet();  // throws std::system_error where there is no descriptor left
    ~EpollSet();
    EpollSet(const EpollSet&) = delete;
    EpollSet& operator=(const EpollSet&) = delete;

    // What is waited for on a descriptor from now on; neither is nothing, but that it fails. What stays as it is costs
    // no system call. `tag` comes back with its readiness. Throws std::system_error where the system refuses it.
    void watch(int fd, bool read, bool write, std::uint64_t tag = 0);
    // To be called before it is closed: its number may be another's at once.
    void forget(int fd);
    std::size_t size() const { return size_; }

    // Looks which are ready, without waiting; next() tells one after the other of those that are still watched, also if
    // others are forgotten, or closed and opened again, in between. What has failed or was hung up is ready for both.
    // Of many ready ones a look tells some, and the next one others.
    void look();
    struct ReadyOne {
        int fd = -1;
        std::uint64_t tag = 0;
        Ready ready;
    };
    bool next(ReadyOne& one);

    // For Driver::interest().
    Interest interest() const { return {fd_, true, false, number_}; }

 private:
    struct Watched {
        bool is_watched = false;
        bool read = false;
        bool write = false;
        std::uint32_t life = 0;  // another one each time that the fd is watched again
        std::uint64_t tag = 0;
    };

    int fd_ = -1;
    std::uint64_t number_ = next_descriptor();
    std::size_t size_ = 0;
    std::vector<Watched> watched_;  // by fd
    std::array<epoll_event, 256> found_{};
    std::size_t count_ = 0;
    std::size_t taken_ = 0;
};

}  // namespace eventbus::broker
