// What it is: the interface every protocol implements, and its contract: offer, drive, settle.
// Who calls it: delivery; the host only waits on the interests.
// Never: a driver never logs, never retries, never blocks and never knows another driver.
//
// The contract
//  1. A driver lives for one connection. It starts to connect when made; once drive() has said `down` it is
//     finished: settle() is drained and the driver destroyed. Back-off and the next attempt are delivery's.
//  2. Every ticket that offer() accepted settles exactly once. When the link goes down, all open ones settle
//     `unknown`, before drive() returns `down`.
//  3. What an Outgoing points to is borrowed until its ticket settles (the Outgoing itself only during offer()).
//  4. Settlements may come in any order. Within a lane, messages go out in the order in which they were offered.
//  5. Nothing blocks: name look-ups, connects, TLS, logins, reads and writes are all driven by drive().
//  6. One lane's failure (a missing exchange) leaves the tickets of other lanes alone.
//  7. offer() only queues; drive() writes. One call of drive() writes what is queued in as few system calls as
//     the socket takes. After the last offer() there is a drive() at once.
//  8. A driver made with BrokerSettings::look_ms only looks: it is told at what (look_at) before the first drive(),
//     connects in a way that disturbs no sender's connection, asks, and writes nothing; nothing is offered to it. What
//     it has found out by then, look() tells at any time. All others never ask for more than they need to deliver.
//  9. Reasons and findings are fit to be shown, whatever the broker says: a module hands out drivers through redacted()
//     (broker/stream/redacted_driver.hpp). What a peer makes a driver keep or say is bounded.
// 10. A driver names one descriptor to wait on. One that has many (connections, a listening socket and its clients,
//     those of a library) keeps them in a broker::EpollSet (broker/stream/epoll_set.hpp), names that set's, and asks it
//     in drive() which of them are ready: so no more than what is ready is visited, however many there are.
// 11. A sink need not have a link. The link's state says whether offer() takes tickets: a file, or the database itself,
//     is `up` from the first drive() on with nothing to wait for (an Interest without a descriptor); one that listens
//     is `up` as soon as it takes tickets, clients or none; one with many connections while any of them takes some.
//     What cannot be used is `down`, with the reason and the remedy, and is made again after a while like any other.
// 12. All that crosses this border can be made again from plain values on another side of it, also what a module has
//     read of options (Handle): by reading the same text again.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/broker_settings.hpp"
#include "core/event.hpp"
#include "core/options.hpp"
#include "core/settlement.hpp"

namespace eventbus::broker {

using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;

// The descriptor to wait on, and for what.
struct Interest {
    int fd = -1;  // -1: none
    bool read = false;
    bool write = false;
    // Of a driver that opens one descriptor after the other, each has another number (next_descriptor()): they may have
    // the same fd, and who waits would not notice. Stream and EpollSet see to it.
    std::uint64_t number = 0;
};
// No other descriptor of the module has had it.
inline std::uint64_t next_descriptor() {
    static std::uint64_t last = 0;
    return ++last;
}

// What the host found ready. Drivers stand spurious readiness.
struct Ready {
    bool read = false;
    bool write = false;
};

enum class LinkState : std::uint8_t {
    connecting,
    up,
    blocked,  // up, but the broker asked us to hold our messages (connection.blocked)
    down,     // for good: make a new driver
};

struct Link {
    LinkState state = LinkState::connecting;
    Remedy remedy = Remedy::none;  // when down: retry, or fix_settings (login refused, certificate refused)
    std::string reason;            // when down or blocked: the broker's or the system's words, without secrets
    bool goodbye = false;          // when down: the broker left for reasons of its own, whatever was under way
    bool contested = false;        // when down: another client has our place; whoever comes back puts the other out
    bool idle = false;             // when down: the broker closed an idle connection: nothing was under way
};

// How a route addresses its messages; the same object for all messages of a route.
struct Addressing {
    std::string kind;     // "stream", "exchange" …: one of the module's kinds
    bool varies = false;  // the destination's name is made of the event
    Handle own;           // the module's own options of the route (Module::read_route)
};

// One ticket.
struct Outgoing {
    std::uint64_t ticket = 0;
    std::uint32_t lane = 0;  // the route's id: order holds within it, failures stay within it
    const Event* event = nullptr;
    const Addressing* addressing = nullptr;
    std::string_view name;         // the destination's name, rendered: of an exchange, a queue, a stream, a topic …
    std::string_view routing_key;  // rendered; empty where the route has none (RouteRead)
};

// A destination to look at.
struct Target {
    Addressing addressing;
    std::string name;  // of one that varies: its template
};

// One step of a look.
struct Finding {
    enum class Answer : std::uint8_t { yes, no, unknown };  // unknown: nobody can know before a message is sent
    const char* step = "";
    Answer answer = Answer::yes;
    std::string detail;
    std::string hint;  // what to do; may be empty
};

struct Look {
    std::vector<Finding>
        findings;  // so far, step by step: connect, tls, websocket, login, broker, destination, permission
    const char* step = "connect";  // what is under way, or was when the link went down
    bool done = false;

    void found(const char* at, std::string detail, Finding::Answer answer = Finding::Answer::yes,
               std::string hint = {}) {
        findings.push_back({at, answer, std::move(detail), std::move(hint)});
    }
};

class Driver {
 public:
    virtual ~Driver() = default;
    virtual Interest interest() const = 0;                      // until the next drive()
    virtual TimePoint wake_at() const = 0;                      // drive() by then, readiness or not; max() is never
    virtual Link drive(Ready ready, TimePoint now) = 0;         // connect, read, write
    virtual bool offer(const Outgoing& outgoing) = 0;           // false: window full, or the link is not up
    virtual std::size_t settle(std::span<Settlement> out) = 0;  // how many were written; 0 when drained
    // Of a driver that only looks.
    virtual void look_at(const Target&) {}
    virtual Look look() const { return {}; }
};

// The face of a protocol's module: its one extern "C" symbol returns this. A server that runs on while its files are
// replaced has an old library and new modules: what was not built together is told apart by `build`.
struct Module;
std::uint64_t this_build();

struct Scheme {
    std::string_view name;   // lower case
    std::uint16_t port = 0;  // where the URL has none
    bool has_host = true;    // false: scheme:///path
};

// What other clients and libraries call a scheme of the module's, or take for one.
struct OtherNames {
    std::string_view names;   // between blanks
    std::string_view detail;  // sentences; may be empty
    std::string_view hint;
};

// What a module makes of a route's kind and options.
struct RouteRead {
    Handle own;  // for Addressing::own
    // A template to be rendered for each event beside the destination's name, for Outgoing::routing_key. Empty: an
    // empty one. nullopt: such routes have none.
    std::optional<std::string> routing_key;
};

struct Module {
    std::uint64_t build = this_build();
    const char* protocol = nullptr;  // "redis": the NAME of pg_eventbus_NAME.so
    std::span<const Scheme> schemes{};
    std::span<const OtherNames> other_names{};
    std::span<const std::string_view> kinds{};           // destination kinds: "channel", "stream", "list"
    std::span<const std::string_view> route_options{};   // what routes have beyond the common ones: "maxlen"
    std::span<const std::string_view> broker_options{};  // the same of brokers: "client_id"
    std::size_t longest_name = 0;                        // of destinations and routing keys, bytes; 0: no limit
    // What is wrong with a part of a destination's name, whatever else stands in it: `has a "+"`; empty: nothing. May
    // be missing.
    std::string (*flaw_in_name)(std::string_view part) = nullptr;
    // Reads the module's own options of a broker, and throws BadInput when they, the URL or a common option make no
    // sense for the protocol; adds those that do nothing to `idle`. No I/O. May be missing.
    Handle (*read_broker)(const BrokerSettings& settings, const Options& options, IdleOptions& idle) = nullptr;
    // The same of a route. May be missing.
    RouteRead (*read_route)(std::string_view kind, const Options& options) = nullptr;
    // A driver that starts to connect to one of the hosts: attempt 0, 1, 2 … takes them in turn.
    std::unique_ptr<Driver> (*connect)(const BrokerSettings& settings, unsigned attempt, TimePoint now) = nullptr;
    // Set by the loader: whether another protocol has an option of that name.
    bool (*is_elsewhere)(OptionsOf of, std::string_view option) = nullptr;
};

// Our own build defines it; beside installed headers stands one that does.
#if !defined(EVENTBUS_VERSION) && __has_include(<pg_eventbus_version.hpp>)
#include <pg_eventbus_version.hpp>
#endif
#ifndef EVENTBUS_VERSION
#define EVENTBUS_VERSION "unreleased"
#endif

// The version and the layout of everything that crosses the border between library and module.
inline std::uint64_t this_build() {
    std::uint64_t hash = 1469598103934665603u;
    auto mix = [&hash](std::uint64_t value) { hash = (hash ^ value) * 1099511628211u; };
    for (char c : std::string_view(EVENTBUS_VERSION)) mix(static_cast<unsigned char>(c));
    for (std::size_t size :
         {sizeof(Module),           sizeof(Scheme),         sizeof(OtherNames),       sizeof(RouteRead),
          sizeof(Options),          sizeof(Option),         sizeof(KnownOptions),     sizeof(Outgoing),
          sizeof(Addressing),       sizeof(Event),          sizeof(Settlement),       sizeof(Link),
          sizeof(Interest),         sizeof(BrokerSettings), sizeof(IdleOptions),      sizeof(Target),
          sizeof(Finding),          sizeof(Look),           offsetof(Event, payload), offsetof(Outgoing, name),
          offsetof(Module, connect)})
        mix(size);
    return hash;
}

using ModuleFunction = const Module* (*)();
inline constexpr const char* module_symbol = "eventbus_driver_module";

}  // namespace eventbus::broker
