// What it is: a source of events, as a sender sees it: the log, the WAL, and whatever else there may be.
// Who calls it: the sender: round.hpp says when; and its parts for one route.
// Never: blocks, or ends the sender for what one event, route or file did; nothing else of the sender knows which source a route has.
//
// A source hands chunks of events to the dispatcher, on streams of its own choice, in its own order. It keeps a place
// for each route, in the columns of eventbus.cursor that are its own, and resumes there after a restart. A route that
// is stalled delays no other one, and does not make memory grow. CONTRIBUTING.md says how to add one.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>

#include "delivery/dispatcher.hpp"

namespace eventbus::counters {
struct Wanted;
enum class Answer : std::uint8_t;
}  // namespace eventbus::counters

namespace eventbus::source {

class Source;

// What a source keeps for a route; each has its own.
struct RouteFeed {};

// A route, as far as its source and its sender share it.
struct Route {
    std::int32_t id;
    Source* source;
    RouteFeed* feed;
};

class Source {
 public:
    explicit Source(const char* source_name) : name(source_name) {}
    const char* const name;  // in eventbus.route_config.source

    // The loop; round.hpp calls these, in this order.
    // Reads for a few milliseconds at most, and hands over what routes have room for. True: there may be more at once.
    virtual bool read() = 0;
    // The dispatcher's report has been taken. Tells it of streams for which there is no room now, and so of routes
    // that are stuck for good, which park_key() is then called for.
    virtual void tell_room() {}
    // True: there is something to read at once.
    virtual bool arrange() { return false; }
    // The cursors have been written: what none of them needs may go.
    virtual void confirm() {}
    // In how many milliseconds to call again without being woken; negative: only when woken.
    virtual long wait_ms() { return -1; }
    // Events come so fast, and are delivered so fast, that a wake-up for each is not worth it.
    virtual bool comes_fast() = 0;
    // Asked when the sender has said that it sleeps: whether something has come that it would not be woken for.
    virtual bool has_more() = 0;
    virtual void woken(std::int64_t /* steady time */) {}
    // True: the chunk was this source's.
    virtual bool take_back(const delivery::Report::Finished& finished) = 0;

    // Routes. Between SPI_connect and SPI_finish.
    virtual void begin_configuration() {}
    // The route is new: its row is loaded, and what the source keeps of it is made.
    virtual void load_place(Route* route) = 0;
    // Routes that are new; their places have been loaded.
    virtual void place(std::span<Route* const> /* fresh */) {}
    virtual delivery::StreamId stream_of(const Route* route) = 0;
    // The route has been added to the dispatcher, and nothing has been handed over for it: its keys that were parked
    // earlier are parked again.
    virtual void load_parked_keys(Route* route) = 0;
    // The configuration has been read again. changed: its topics, destination or options are others now.
    virtual void apply(Route* route, bool changed) = 0;
    virtual void retry(Route*) {}  // an operator has changed something that is said to help
    // A row that cannot be used: what is its stays for when it can.
    virtual void keep_for_unusable(std::int32_t id, const char* topics) = 0;
    // The route is gone from the dispatcher; what was handed over for it is taken back later.
    virtual void remove(Route* route) = 0;
    // Parts with the key, or the event without one, that blocks the route, which the dispatcher calls stuck. False
    // where that cannot be done for now.
    virtual bool park_key(Route* route) = 0;

    // Cursors. Between SPI_connect and SPI_finish but for saved().
    virtual bool is_lost(const Route*) { return false; }   // for ever: its cursor stays as it is
    virtual bool can_wait(const Route*) { return false; }  // its cursor says little new, and may be written later
    // Writes the route's row again, with the place up to which everything is settled.
    virtual void save_place(Route* route, const delivery::Position& settled) = 0;
    virtual void save_parked_keys(Route* route) = 0;
    virtual void saved(Route* route) = 0;  // that is committed

    // What people see.
    struct State {
        const char* name = nullptr;  // of eventbus.status.state, where it is not delivery's to know
        const char* words = "";      // what is wrong, in either case
        std::int64_t retry_at = 0;   // steady time; 0: it is not tried again by a clock
    };
    virtual State state(const Route*) { return {}; }
    // When the oldest event may have been committed that has not been handed over for the route; 0: there is none;
    // counters::oldest_unknown. In PostgreSQL's microseconds.
    virtual std::int64_t oldest_to_come(const Route*) { return 0; }
    // What its routes wait for although the broker has everything that was handed over; empty: for what comes.
    virtual const char* standstill() { return ""; }
    virtual counters::Answer answer(const Route* route, const counters::Wanted& wanted) = 0;

 protected:
    ~Source() = default;
};

inline constexpr const char* state_lost = "lost";
inline constexpr const char* state_starting = "starting";  // this one's words are no error
inline bool is_state(const char* state, const char* which) {
    return state != nullptr && std::strcmp(state, which) == 0;
}

}  // namespace eventbus::source
