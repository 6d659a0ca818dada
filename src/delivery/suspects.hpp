// What it is: what is known of the link that an event under way may break: the state of the search for that event.
// Who calls it: the dispatcher, which leads the search; route queues, which mark, offer and judge their events.
// Never: outlives a link: each break begins the search again, from the marks that the events carry.
//
// An event that was under way at several breaks is a suspect. Suspects are offered after everybody else, those first
// that were there at the fewest breaks, and with nothing else under way: one, and while all goes well twice as many
// each time. The one that was alone when a link broke that had delivered something is accused and, when it is alone at
// a break again, guilty. That counts as an attempt only if the link had delivered something, and not just as much as
// the link before it: something else may cut links that have carried so much.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/event_id.hpp"

namespace eventbus::delivery {

enum class Blame : std::uint8_t { none, accused, guilty };

struct Suspicion {
    std::uint16_t breaks = 0;  // of links while the event was under way
    Blame blame = Blame::none;
    auto operator<=>(const Suspicion&) const = default;
};

struct SuspectSearch {
    static constexpr std::size_t most_at_once = 4096;

    std::size_t under_test = 0;  // suspects under way, with nothing beside them
    std::size_t next_test = 1;   // how many of them the next time
    Suspicion tested;            // what they have in common
    std::size_t delivered = 0;   // on this link
    bool broke = false;          // the link has just broken, and what was under way may be why
    EventId culprit;             // the event that was found guilty of that just now
    bool expected = false;       // an event that was guilty before did it again
    std::string reason;          // of the break
};

}  // namespace eventbus::delivery
