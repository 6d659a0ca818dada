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
//     the socket takes.
//  8. A driver made with BrokerSettings::look_ms only looks: it is told at what (look_at) before the first drive(),
//     connects in a way that disturbs no sender's connection, asks, and writes nothing; nothing is offered to it. What
//     it has found out by then, look() tells at any time. All others never ask for more than they need to deliver.
//  9. Reasons and findings are fit to be shown, whatever the broker says: a module hands out drivers through discreet()
//     (broker/stream/discreet.hpp). What a peer makes a driver keep or say is bounded.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/broker_settings.hpp"
#include "core/event.hpp"
#include "core/settlement.hpp"

namespace eventbus::broker {

using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;

// A file descriptor to wait on, and for what.
struct Interest {
    int fd = -1;
    bool read = false;
    bool write = false;
};

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
    std::string kind;         // "stream", "exchange" …: one of the module's kinds
    bool persistent = true;   // AMQP: delivery mode 2
    std::int64_t maxlen = 0;  // Redis stream: approximate trimming; 0 is none
    int qos = 1;              // MQTT
    bool retain = false;      // MQTT
    bool varies = false;      // the destination's name is made of the event
};

// One ticket.
struct Outgoing {
    std::uint64_t ticket = 0;
    std::uint32_t lane = 0;  // the route's id: order holds within it, failures stay within it
    const Event* event = nullptr;
    const Addressing* addressing = nullptr;
    std::string_view name;  // the destination's name, rendered: exchange, queue, channel, stream, list, MQTT topic
    std::string_view routing_key;  // AMQP, rendered; empty elsewhere
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
    virtual std::span<const Interest> interests() const = 0;    // valid until the next drive()
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

struct Module {
    std::uint64_t build = this_build();
    const char* protocol = nullptr;                    // "redis"
    std::span<const std::string_view> kinds;           // destination kinds: "channel", "stream", "list"
    std::span<const std::string_view> route_options;   // route options that only some protocols know: "maxlen"
    std::span<const std::string_view> broker_options;  // the same of broker options: "client_id"
    std::size_t longest_name = 0;                      // of destinations and routing keys, bytes; 0: no limit
    // What is wrong with a part of a destination's name, whatever else stands in it: `has a "+"`; empty: nothing. May
    // be missing.
    std::string (*flaw_in_name)(std::string_view part) = nullptr;
    // Throws BadInput when the URL or an option makes no sense for this protocol. No I/O.
    void (*check)(const BrokerSettings& settings) = nullptr;
    // Options of this protocol that do nothing beside others; may be missing.
    void (*find_idle)(const BrokerSettings& settings, IdleOptions& idle) = nullptr;
    // A driver that starts to connect to one of the hosts: attempt 0, 1, 2 … takes them in turn.
    std::unique_ptr<Driver> (*connect)(const BrokerSettings& settings, unsigned attempt, TimePoint now) = nullptr;
};

#ifndef EVENTBUS_VERSION
#define EVENTBUS_VERSION "unreleased"
#endif

// The version and the layout of everything that crosses the border between library and module.
inline std::uint64_t this_build() {
    std::uint64_t hash = 1469598103934665603u;
    auto mix = [&hash](std::uint64_t value) { hash = (hash ^ value) * 1099511628211u; };
    for (char c : std::string_view(EVENTBUS_VERSION)) mix(static_cast<unsigned char>(c));
    for (std::size_t size : {sizeof(Module), sizeof(Outgoing), sizeof(Addressing), sizeof(Event), sizeof(Settlement),
                             sizeof(Link), sizeof(Interest), sizeof(BrokerSettings), sizeof(Target), sizeof(Finding),
                             sizeof(Look), offsetof(Event, payload), offsetof(Outgoing, name)})
        mix(size);
    return hash;
}

using ModuleFunction = const Module* (*)();
inline constexpr const char* module_symbol = "eventbus_driver_module";

}  // namespace eventbus::broker
