// What it is: tests of waiting on many descriptors behind one.
// Who calls it: make -C test/unit stream.
// Never: waits for longer than what is not ready takes to show it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <set>
#include <system_error>
#include <vector>

#include "broker/stream/epoll_set.hpp"

using namespace eventbus::broker;

namespace {

class Eventfd {
 public:
    Eventfd() : fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) { EXPECT_GE(fd, 0); }
    ~Eventfd() {
        if (fd >= 0) close(fd);
    }
    Eventfd(const Eventfd&) = delete;
    Eventfd& operator=(const Eventfd&) = delete;
    void set() const { EXPECT_EQ(eventfd_write(fd, 1), 0); }
    void clear() const {
        eventfd_t value = 0;
        eventfd_read(fd, &value);
    }
    const int fd;
};

bool is_ready(const EpollSet& set) {
    pollfd waiting{set.interest().fd, POLLIN, 0};
    return poll(&waiting, 1, 0) == 1;
}

// Tags, and how often each.
std::map<std::uint64_t, int> ready_in(EpollSet& set) {
    std::map<std::uint64_t, int> found;
    set.look();
    for (EpollSet::ReadyOne one; set.next(one);) ++found[one.tag];
    return found;
}

std::size_t most_descriptors() {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 20000);
    setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

}  // namespace

TEST(EpollSet, OfThousandsOnlyThoseThatAreReadyAreVisited) {
    const std::size_t count = std::min<std::size_t>(5000, most_descriptors() - 100);
    EpollSet set;
    std::vector<std::unique_ptr<Eventfd>> all;
    for (std::size_t i = 0; i < count; ++i) {
        all.push_back(std::make_unique<Eventfd>());
        set.watch(all.back()->fd, true, false, i);
    }
    EXPECT_EQ(set.size(), count);
    EXPECT_FALSE(is_ready(set));
    EXPECT_TRUE(ready_in(set).empty());

    const std::set<std::uint64_t> some{0, 17, count / 2, count - 1};
    for (const auto i : some) all[i]->set();
    EXPECT_TRUE(is_ready(set));
    const auto found = ready_in(set);
    EXPECT_EQ(found.size(), some.size());
    for (const auto& [tag, times] : found) {
        EXPECT_TRUE(some.contains(tag)) << tag;
        EXPECT_EQ(times, 1);
    }
    EXPECT_EQ(ready_in(set).size(), some.size()) << "they still are";
    for (const auto i : some) all[i]->clear();
    EXPECT_FALSE(is_ready(set));

    // Every second one goes; those that stay are told, and none that has gone.
    for (std::size_t i = 0; i < count; i += 2) {
        set.forget(all[i]->fd);
        all[i]->set();
        all[i].reset();
    }
    EXPECT_EQ(set.size(), count / 2);
    EXPECT_FALSE(is_ready(set));
    for (std::size_t i = 1; i < count; i += 2) all[i]->set();
    std::set<std::uint64_t> seen;
    for (int looks = 0; looks < 1000 && seen.size() < count / 2; ++looks)
        for (const auto& [tag, times] : ready_in(set)) {
            EXPECT_EQ(tag % 2, 1u);
            seen.insert(tag);
        }
    EXPECT_EQ(seen.size(), count / 2) << "of more than one look tells, none is passed over for ever";
}

TEST(EpollSet, WhatIsWaitedForChanges) {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    EpollSet set;
    EpollSet::ReadyOne one;
    set.watch(pair[0], true, false, 1);
    EXPECT_FALSE(is_ready(set));
    set.watch(pair[0], true, true, 2);
    set.look();
    ASSERT_TRUE(set.next(one));
    EXPECT_EQ(one.fd, pair[0]);
    EXPECT_EQ(one.tag, 2u);
    EXPECT_TRUE(one.ready.write);
    EXPECT_FALSE(one.ready.read);
    EXPECT_FALSE(set.next(one));
    set.watch(pair[0], false, false, 2);
    ASSERT_EQ(send(pair[1], "x", 1, 0), 1);
    EXPECT_FALSE(is_ready(set)) << "nothing is waited for";
    set.watch(pair[0], true, false, 3);
    set.look();
    ASSERT_TRUE(set.next(one));
    EXPECT_TRUE(one.ready.read);
    close(pair[1]);
    set.watch(pair[0], false, false, 4);
    set.look();
    ASSERT_TRUE(set.next(one)) << "its end is told in any case";
    EXPECT_TRUE(one.ready.read && one.ready.write);
    EXPECT_EQ(set.size(), 1u);
    set.forget(pair[0]);
    set.forget(pair[0]);
    set.forget(100000);
    close(pair[0]);
    EXPECT_EQ(set.size(), 0u);
}

TEST(EpollSet, AnFdThatIsAnotherDescriptorNow) {
    EpollSet set;
    auto first = std::make_unique<Eventfd>();
    const int fd = first->fd;
    Eventfd other;
    set.watch(fd, true, false, 1);
    set.watch(other.fd, true, false, 2);
    first->set();
    other.set();

    // Both were found ready. While the first of them is looked after, the other one is closed, and its number used
    // again.
    set.look();
    EpollSet::ReadyOne one;
    ASSERT_TRUE(set.next(one));
    const int closed = one.tag == 1 ? other.fd : fd;
    set.forget(closed);
    Eventfd quiet;
    ASSERT_EQ(dup3(quiet.fd, closed, O_CLOEXEC), closed);
    set.watch(closed, true, false, 3);
    EXPECT_FALSE(set.next(one)) << "the new one is not ready: tag " << one.tag;
    set.forget(one.fd);
    EXPECT_FALSE(is_ready(set));
    quiet.set();
    EXPECT_EQ(ready_in(set), (std::map<std::uint64_t, int>{{3, 1}}));

    // One that is closed before it is forgotten.
    set.forget(closed);
    EXPECT_EQ(set.size(), 0u);
    auto third = std::make_unique<Eventfd>();
    const int number = third->fd;
    set.watch(number, true, false, 4);
    third.reset();
    set.forget(number);
    const Eventfd fourth;
    ASSERT_EQ(fourth.fd, number);
    set.watch(number, true, false, 5);
    fourth.set();
    EXPECT_EQ(ready_in(set), (std::map<std::uint64_t, int>{{5, 1}}));
}

TEST(EpollSet, ReadinessMayBeGoneBeforeItIsLookedAt) {
    EpollSet set;
    Eventfd one;
    set.watch(one.fd, true, false, 1);
    one.set();
    EXPECT_TRUE(is_ready(set));
    one.clear();
    EXPECT_TRUE(ready_in(set).empty());
    set.look();
    EpollSet::ReadyOne found;
    EXPECT_FALSE(set.next(found));
    EXPECT_FALSE(set.next(found));
}

TEST(EpollSet, AnotherOneHasAnotherNumberThoughItMayHaveTheSameFd) {
    Interest first;
    {
        const EpollSet set;
        first = set.interest();
    }
    const EpollSet set;
    EXPECT_EQ(set.interest().fd, first.fd);
    EXPECT_NE(set.interest().number, first.number);
}

TEST(EpollSet, RefusesWhatCannotBeWaitedFor) {
    EpollSet set;
    const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ASSERT_GE(file, 0);
    EXPECT_THROW(set.watch(file, true, false), std::system_error) << "a file is always ready";
    close(file);
    EXPECT_THROW(set.watch(file, true, false), std::system_error) << "it is closed";
    EXPECT_EQ(set.size(), 0u);
}
