// What it is: delivery to one broker: windows, per-key order, retry, back-off, holding of routes.
// Who calls it: the sender, in its loop: lend chunks, drive, take the report.
// Never: touches PostgreSQL, sleeps, or writes a dead letter itself; it reports by value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker/driver.hpp"
#include "core/backoff.hpp"
#include "core/event.hpp"
#include "core/latency.hpp"
#include "core/settlement.hpp"
#include "delivery/parked_key.hpp"
#include "router/route.hpp"

namespace eventbus::delivery {

using broker::TimePoint;
using RouteId = std::uint32_t;
using StreamId = std::uint32_t;
using ChunkId = std::uint64_t;
using ParkedKeyId = std::uint32_t;

// Events read together from a source, in the order in which they are to be offered. Lent by the host until its
// id comes back in Report::finished. An empty chunk is fine: it only moves cursors.
struct Chunk {
    ChunkId id = 0;  // rising within a stream
    std::span<const Event> events;
    std::int64_t committed_after = 0;  // none of them was visible then; microseconds since the Unix epoch
    // What some routes of the stream had settled before they came to it.
    struct Settled {
        RouteId route;
        std::uint32_t index;
    };
    std::span<const Settled> settled{};
};

// "Everything of the chunks before `chunk`, and of this chunk the events before `index`, is settled."
struct Position {
    ChunkId chunk = 0;
    std::uint32_t index = 0;
    auto operator<=>(const Position&) const = default;
};

// When something happened. A clock may be set back: what happened later has the higher number.
struct Moment {
    std::uint64_t number = 0;  // 0: never
    std::int64_t wall = 0;     // microseconds since the Unix epoch
    auto operator<=>(const Moment&) const = default;
};

enum class RouteState : std::uint8_t {
    active,      // the link is up
    connecting,  // the first attempts of a link
    retrying,    // the broker is down, or gives everything an answer that may pass: waiting for the next attempt
    blocked,     // the broker asked us to wait
    held,        // refused by the broker until settings are fixed; tried again slowly
    paused,
};

struct RouteStatus {
    RouteId route = 0;
    RouteState state = RouteState::connecting;
    StreamId stream = 0;
    bool idle = true;             // nothing of its stream's lent chunks is unsettled for it
    Position settled;             // the low-water mark
    std::uint64_t delivered = 0;  // since the dispatcher was made
    std::uint64_t dead = 0;
    std::uint64_t retries = 0;  // tickets offered again
    std::uint32_t in_flight = 0;
    std::int64_t oldest_published_at = 0;  // of the oldest unsettled event among the lent ones; 0: none
    Moment last_delivered_at;
    Moment last_error_at;
    std::string_view last_error;  // valid until the next call
    // When the link, a held route or the next refused event is tried again; {}: none waits for a time of its own.
    TimePoint next_attempt_at{};
};

// What there is to wait for while the link is up.
struct Load {
    bool under_way = false;  // tickets that the broker has not answered
    bool waiting = false;    // events that cannot be offered now: refused before, or their route is held or paused
};

struct DeadLetter {
    RouteId route = 0;
    StreamId stream = 0;
    const Event* event = nullptr;  // valid until release()
    std::string error;             // the broker's own words
    std::uint32_t attempts = 0;
};

struct Notice {  // a change of state, once per change; the host logs it
    enum class Level : std::uint8_t { log, warning } level = Level::log;
    std::string text;
    std::string hint;
};

// What happened since the last report. The host stores the dead letters durably before it writes any cursor
// that this report moves, then frees the finished chunks.
struct Report {
    std::vector<DeadLetter> dead;
    std::vector<Notice> notices;
    struct Finished {
        StreamId stream;
        ChunkId chunk;
    };
    std::vector<Finished> finished;
    bool moved = false;  // some route's settled position or counters changed
    void clear();
};

inline constexpr std::size_t bytes_a_ticket = 120;

struct DispatcherLimits {
    std::size_t events = 20000;           // a stream is hungry while it has fewer events lent …
    std::size_t bytes = 8 * 1024 * 1024;  // … and fewer bytes
    Backoff::Duration link_first{100};    // reconnects
    Backoff::Duration link_most{1600};
    std::chrono::milliseconds idle_at_least{500};  // a link that is closed idle sooner is in trouble
    Backoff::Duration event_first{100};            // refused, retry
    Backoff::Duration event_most{30000};
    unsigned suspect_after = 3;          // breaks of links while an event was under way
    Backoff::Duration hold_first{1000};  // refused, fix_settings
    Backoff::Duration hold_most{30000};
    std::chrono::milliseconds healthy{10000};        // a link or route that worked this long starts its back-off again
    std::chrono::milliseconds longest_drive{5};      // of the real clock
    std::chrono::milliseconds park_after{3000};      // refused for so long while others are delivered
    std::size_t parked_keys = 32;                    // of a route; beyond that it is the route's trouble
    std::chrono::milliseconds tell_refused{10000};   // a route that delivers nothing but is refused for so long
    std::chrono::milliseconds give_up_after{60000};  // forbidden or unclear for so long while others are delivered
    std::chrono::milliseconds consequence{1000};     // a link that breaks so soon after a refusal breaks because of it
};

// Wall-clock time in microseconds since the Unix epoch; tests put their own.
using WallClock = std::function<std::int64_t()>;
// A new connection; attempt counts from 0 and picks the host.
using Connect = std::function<std::unique_ptr<broker::Driver>(unsigned attempt, TimePoint now)>;

class Dispatcher {
 public:
    // broker_shown: "broker \"cache\" (redis://127.0.0.1:6379)", for notices; has no password in it.
    Dispatcher(std::string broker_shown, Connect connect, WallClock wall, DispatcherLimits limits = {},
               std::uint32_t seed = 1);
    ~Dispatcher();
    Dispatcher(const Dispatcher&) = delete;
    Dispatcher& operator=(const Dispatcher&) = delete;

    // Routes. A route belongs to one stream at a time: it takes what is lent on it from then on.
    // What is delivered for its kin, another route, tells as much of it as what is delivered for itself.
    void add_route(router::Route route, StreamId stream, bool may_park_keys = true,
                   std::optional<RouteId> kin = std::nullopt);
    void change_route(
        const router::Route& route);            // same id: new topics, destination, options for events not yet offered
    void remove_route(RouteId id);              // its open tickets are forgotten when they settle
    void pause_route(RouteId id, bool paused);  // open tickets still settle, no new ones are offered
    void release_route(RouteId id);             // an operator fixed something: a held route is tried at once
    // Moves an idle route to another stream; the host has made sure that both stand at the same place.
    void move_route(RouteId id, StreamId stream);
    // Leaves out what is lent to the route in these chunks, rising; returns how many events of them were not settled.
    // What is under way is among them, and is forgotten when it settles.
    std::uint64_t leave_out(RouteId id, std::span<const ChunkId> chunks, ParkedKeyId number = 0);

    // Parked keys of routes. Changing, removing, pausing and releasing a route does the same to them.
    // A route that an event blocks for long while others are delivered.
    std::optional<RouteId> stuck() const;
    // The route, which is stuck, parts with what holds it up: a parked key, whose number is the host's choice, takes it
    // from now on, from a stream of its own that begins where the route was settled before.
    void park_key_of(RouteId id, ParkedKeyId number, StreamId stream);
    // A parked key of earlier times: nothing has been lent to the route yet.
    void add_parked_key(RouteId id, ParkedKeyId number, StreamId stream, ParkedKey parked_key);
    // The parked key, which is idle, has been lent what the route was, and that is all that was ever lent to either,
    // before a restart as well: the route takes the key again.
    void end_parked_key(RouteId id, ParkedKeyId number);
    // Once the route's settled position is behind that place. Counters go to the route.
    void remove_parked_key(RouteId id, ParkedKeyId number);
    const ParkedKey& parked_key(RouteId id, ParkedKeyId number) const;
    RouteStatus status(RouteId id, ParkedKeyId number) const;
    // What is to be kept of ParkedKey::settled, with the parked key's settled position; valid until the next call.
    std::span<const EventId> settled_ahead(RouteId id, ParkedKeyId number);

    // Feeding.
    bool hungry(StreamId stream) const;  // lend more
    bool is_idle(RouteId id) const;      // nothing of what is lent is unsettled for the route itself
    // A route of the stream has something to deliver, and waits with it: paused, held, refused for now.
    bool stands_still(StreamId stream) const;
    // Returns how many tickets may come of it at most, each of which takes about bytes_a_ticket until all of the chunk
    // is settled.
    std::size_t lend(StreamId stream, const Chunk& chunk);
    // The host has no room for more of the stream for now, however hungry it is: what its routes have is all they get.
    void close_stream(StreamId stream, bool closed);

    // The network.
    broker::Interest interest() const;
    TimePoint wake_at() const;  // now or earlier: there is work that waits for no file descriptor
    void drive(broker::Ready ready, TimePoint now);

    // What happened. Views and event pointers in the report are valid until release().
    void report(Report& into);
    void release(std::span<const Report::Finished> finished);
    RouteStatus status(RouteId id) const;  // counters and the oldest event are those of its parked keys as well
    // Whether the route (a parked key) has settled the event at this place (or does not want it), also while older ones
    // are not; of a chunk that is lent on the route's stream.
    bool is_settled(RouteId id, Position event, ParkedKeyId number = 0) const;
    // Adds how long what was delivered since the last call took from its commit on.
    void take_latencies(RouteId id, LatencyCounts& into);
    Load load() const;
    broker::LinkState link() const;
    std::string_view link_error() const;

 private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace eventbus::delivery
