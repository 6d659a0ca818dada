// What it is: epoll for descriptors that come and go, level-triggered.
// Who calls it: drivers with many descriptors.
// Never: takes the readiness of a descriptor that is gone for that of its successor.
#include "broker/stream/epoll_set.hpp"

#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace eventbus::broker {

namespace {

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

EpollSet::EpollSet() : fd_(epoll_create1(EPOLL_CLOEXEC)) {
    if (fd_ < 0) fail("could not make an epoll instance");
}

EpollSet::~EpollSet() {
    close(fd_);
}

void EpollSet::watch(int fd, bool read, bool write, std::uint64_t tag) {
    const auto at = static_cast<std::size_t>(fd);
    if (at >= watched_.size()) watched_.resize(at + 1);
    Watched& one = watched_[at];
    one.tag = tag;
    if (one.is_watched && one.read == read && one.write == write) return;
    epoll_event event{};
    event.events = (read ? EPOLLIN : 0U) | (write ? EPOLLOUT : 0U);
    const std::uint32_t life = one.is_watched ? one.life : one.life + 1;
    event.data.u64 = std::uint64_t{life} << 32 | static_cast<std::uint32_t>(fd);
    if (epoll_ctl(fd_, one.is_watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0)
        fail("could not wait for a descriptor");
    if (!one.is_watched) ++size_;
    one = {true, read, write, life, tag};
}

void EpollSet::forget(int fd) {
    const auto at = static_cast<std::size_t>(fd);
    if (at >= watched_.size() || !watched_[at].is_watched) return;
    epoll_ctl(fd_, EPOLL_CTL_DEL, fd, nullptr);  // one that is closed already has left by itself
    watched_[at].is_watched = false;
    --size_;
}

void EpollSet::look() {
    const int count = epoll_wait(fd_, found_.data(), static_cast<int>(found_.size()), 0);
    count_ = count > 0 ? static_cast<std::size_t>(count) : 0;
    taken_ = 0;
}

bool EpollSet::next(ReadyOne& one) {
    while (taken_ < count_) {
        const epoll_event& event = found_[taken_++];
        const auto fd = static_cast<std::uint32_t>(event.data.u64);
        const Watched& watched = watched_[fd];
        if (!watched.is_watched || watched.life != event.data.u64 >> 32) continue;
        const bool failed = (event.events & (EPOLLERR | EPOLLHUP)) != 0;
        one = {static_cast<int>(fd),
               watched.tag,
               {failed || (event.events & EPOLLIN) != 0, failed || (event.events & EPOLLOUT) != 0}};
        return true;
    }
    return false;
}

}  // namespace eventbus::broker
