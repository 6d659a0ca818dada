// What it is: how much of what the peer makes us say may wait for it to be read.
// Who calls it: the stream.
// Never: counts what nobody asked for.
#pragma once

#include <cstddef>
#include <cstdint>

namespace eventbus::broker {

class ReplyBudget {
 public:
    // Whether so many bytes more may be queued; false when too many of such answers were since the peer last took what
    // was queued before them. taken: bytes that it has taken by now; unsent: those that wait.
    bool allows(std::size_t bytes, std::uint64_t taken, std::size_t unsent) {
        if (taken >= taken_at_) {
            taken_at_ = taken + unsent;
            queued_ = 0;
        }
        queued_ += bytes;
        return queued_ <= most;
    }

 private:
    static constexpr std::size_t most = 64 * 1024;
    std::uint64_t taken_at_ = 0;
    std::size_t queued_ = 0;
};

}  // namespace eventbus::broker
