// What it is: the MQTT driver: one connection, a window of open messages, answers by packet id.
// Who calls it: module.cpp makes it, delivery drives it.
// Never: blocks, logs, retries or shows a password.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/driver.hpp"
#include "broker/mqtt/message.hpp"
#include "broker/mqtt/packets.hpp"
#include "broker/mqtt/session.hpp"
#include "broker/mqtt/wire.hpp"

namespace eventbus::broker::mqtt {

class MqttDriver final : public Driver {
 public:
    MqttDriver(const BrokerSettings& settings, unsigned attempt, TimePoint now);
    ~MqttDriver() override;

    std::span<const Interest> interests() const override;
    TimePoint wake_at() const override;
    Link drive(Ready ready, TimePoint now) override;
    bool offer(const Outgoing& outgoing) override;
    std::size_t settle(std::span<Settlement> out) override;

 private:
    enum class Phase : std::uint8_t { wire, connack, up, down };

    // What a packet id stands for on this connection.
    struct Flight {
        enum class State : std::uint8_t {
            free,
            published,  // PUBLISH went out
            released,   // PUBREL went out
            reserved,   // the broker may know the id; its event has not been offered again yet
            abandoned,  // nor will it be: PUBREL went out, to free the id
        };
        State state = State::free;
        bool has_ticket = false;
        std::uint8_t qos = 0;
        std::uint64_t ticket = 0;
        std::int64_t event = 0;
        std::uint32_t lane = 0;
        std::string_view name;

        // An earlier connection's, whose event is to be offered again.
        bool awaits_event() const { return state == State::reserved || (state == State::released && !has_ticket); }
    };
    struct Unwritten {  // a message with QoS 0
        std::uint64_t ticket = 0;
        std::uint64_t end = 0;  // it is delivered when so many bytes have been taken by the socket
    };

    void begin(TimePoint now);
    bool take_inbox(TimePoint now);
    void take(const Packet& packet);
    void take_connack(const Packet& packet);
    void take_answer(const Packet& packet);
    void take_disconnect(const Packet& packet);
    void resume(bool session_present);
    void complete(std::uint16_t id, Flight& flight);
    void abandon(std::uint16_t id);
    void abandon_reserved();
    void take_over(Flight& flight, const Outgoing& outgoing);
    bool fall_back();
    void move_bytes(TimePoint now);
    void note_progress(std::size_t unsent_before, TimePoint now);
    void keep_time(TimePoint now);
    void settle_written();
    void wire_closed();
    std::string no_answer() const;
    void fail(Remedy remedy, std::string reason);
    void remember_flights();
    void settled(Settlement settlement);

    bool is_open_to(std::size_t in_flight) const;
    bool offer_past(const Outgoing& outgoing, bool& taken);
    bool publish(const Outgoing& outgoing, std::uint16_t id, bool again);
    std::uint16_t new_id();
    Flight& flight(std::uint16_t id);
    void free(std::uint16_t id);
    bool keeps_session() const;
    std::size_t open_tickets() const { return ticketed_ + unwritten_.size(); }

    const BrokerSettings settings_;
    const std::string client_id_;
    const Host host_;
    std::shared_ptr<Session> session_;
    std::optional<Wire> wire_;
    MessageWriter messages_;
    Limits limits_;
    std::size_t window_;
    std::uint32_t keep_alive_s_;
    bool clean_start_ = true;

    Phase phase_ = Phase::wire;
    Link link_;
    TimePoint deadline_;  // for the connection to be up
    TimePoint last_heard_;
    TimePoint last_sent_;
    TimePoint abandon_at_ = TimePoint::max();
    bool pinged_ = false;
    bool stalled_ = false;      // the socket had no room for all at the last drive()
    std::size_t leftover_ = 0;  // of the inbox: part of a packet
    bool written_ = false;      // since the last drive(): it is to be called at once

    std::vector<Flight> flights_;  // by packet id; 0 is none
    std::vector<std::uint16_t> free_ids_;
    std::size_t in_flight_ = 0;  // published or released
    std::size_t ticketed_ = 0;   // of the flights, those with a ticket
    std::size_t reserved_ = 0;   // reserved or abandoned
    std::deque<Unwritten> unwritten_;
    std::uint64_t queued_bytes_ = 0;  // ever put into the outbox

    std::vector<Settlement> settlements_;
    std::size_t settled_ = 0;  // of them, drained
    mutable Interest interest_;
};

}  // namespace eventbus::broker::mqtt
