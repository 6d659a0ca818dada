// What it is: host names made into socket addresses, in a thread of its own where that may take time.
// Who calls it: the stream.
// Never: blocks its caller; a thread that outlives its Lookup only touches what it shares with it.
#pragma once

#include <sys/socket.h>

#include <memory>
#include <string>
#include <vector>

#include "core/broker_settings.hpp"

namespace eventbus::broker {

struct Address {
    sockaddr_storage storage{};
    socklen_t length = 0;
    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
    std::string shown() const;  // 127.0.0.1:6379, [::1]:6379 or a socket's path
};

class Lookup {
 public:
    // Numeric addresses and unix sockets are there at once; names are looked up in a thread.
    explicit Lookup(const Host& host);

    int fd() const;                                 // readable when finished; -1 where there was nothing to wait for
    bool finished() const;                          // whatever became of it
    const std::vector<Address>& addresses() const;  // once finished; empty: see error()
    const std::string& error() const;

 private:
    struct Shared;
    std::shared_ptr<Shared> shared_;
};

}  // namespace eventbus::broker
