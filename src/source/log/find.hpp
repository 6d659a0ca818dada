// What it is: finding one event in the log by its id, and what became of its transaction.
// Who calls it: eventbus.wait_for_delivery.
// Never: asks whether the caller's snapshot sees the event: what counts is what is there now.
#pragma once

#include <string_view>

#include "source/log/reader.hpp"

namespace eventbus::log {

enum class Fate : unsigned char {
    unknown,    // no such id has been given out
    gone,       // the log does not hold it (any more)
    ours,       // published by the running transaction
    running,    // its transaction has not ended
    undone,     // rolled back
    committed,  //
};

struct FoundEvent {
    Fate fate;
    EventPlace place;        // unless unknown or gone
    TransactionId xmin;      // the (sub)transaction that published it
    std::string_view topic;  // palloc'd, UTF-8
    std::optional<std::string_view> key;
};

FoundEvent find_event(int64 id);

// What has become of the transaction since.
Fate fate_of(TransactionId xmin);

}  // namespace eventbus::log
