// What it is: the sources that there are.
// Who calls it: the sender, for each of them, or for a route's.
// Never: knows what they do.
#include "sender/sender.hpp"

namespace eventbus::sender {

std::span<Source* const> sources() {
    static Source* const all[] = {log_source(), wal_source()};
    return all;
}

Source* find_source(const char* name) {
    for (Source* source : sources())
        if (strcmp(source->name, name) == 0) return source;
    return nullptr;
}

}  // namespace eventbus::sender
