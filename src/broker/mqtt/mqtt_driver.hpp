// What it is: the MQTT driver: one connection, a window of open messages, answers by packet id.
// Who calls it: mqtt_module.cpp makes it, delivery drives it.
// Never: blocks, logs, retries or shows a password.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/driver.hpp"
#include "broker/mqtt/mqtt_message.hpp"
#include "broker/mqtt/packets.hpp"
#include "broker/mqtt/session.hpp"
#include "broker/mqtt/wire.hpp"

namespace eventbus::broker::mqtt {

class MqttDriver final : public Driver {
 public:
    MqttDriver(const BrokerSettings& settings, unsigned attempt, TimePoint now);
    ~MqttDriver() override;

    Interest interest() const override;
    TimePoint wake_at() const override;
    Link drive(Ready ready, TimePoint now) override;
    bool offer(const Outgoing& outgoing) override;
    std::size_t settle(std::span<Settlement> out) override;
    void look_at(const Target& target) override { target_ = target; }
    Look look() const override;

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
        bool resumed = false;  // an earlier connection's
        bool silent = false;   // we have waited for an answer in vain, and no longer do
        std::uint8_t qos = 0;
        Type odd_answer = Type::none;  // one that does not belong to this message
        std::uint64_t ticket = 0;
        EventId event;
        std::uint32_t lane = 0;
        std::string_view name;
        std::uint64_t received = 0;  // as the how-manieth, where PUBREC has come
        TimePoint since;             // we wait for an answer

        // Its event is to be offered again.
        bool awaits_event() const { return state == State::reserved || (state == State::released && !has_ticket); }
        bool awaits_answer() const {
            return !silent && (state == State::published || state == State::released || state == State::abandoned);
        }
    };
    struct Unwritten {  // a message with QoS 0
        std::uint64_t ticket = 0;
        std::uint64_t end = 0;  // it is delivered when so many bytes have been taken by the socket
    };

    void begin(TimePoint now);
    bool take_inbox(TimePoint now);
    void take(const Packet& packet);
    void take_connack(const Packet& packet);
    void note_limits(const Connack& connack);
    Finding look_at_destination() const;
    void take_answer(const Packet& packet);
    void take_complete(const Answer& answer, Flight& open);
    void conclude(const Answer& answer, Flight& open);
    void refuse(const Flight& open, const Answer& answer);
    void lower_qos(const char* why);
    void release_again(std::uint16_t id);
    void take_disconnect(const Packet& packet);
    void put_out(const std::string& words);
    void answers_only_3();
    void resume(bool session_present);
    void give_back_received();
    void complete(std::uint16_t id, Flight& flight);
    void received(std::uint16_t id, Flight& flight);
    void abandon(std::uint16_t id);
    void abandon_reserved();
    void take_over(Flight& flight, const Outgoing& outgoing);
    void fall_back();
    bool may_fall_back() const;
    bool hung_up_on_5();
    void move_bytes(TimePoint now);
    void note_progress(std::size_t unsent_before, TimePoint now);
    void keep_time(TimePoint now);
    void settle_written();
    void wire_closed();
    bool looks_taken_over();
    std::string no_answer() const;
    std::string if_not_5() const;
    std::string shown_client_id() const;
    static std::string shown(const Flight& flight);
    void fail(Remedy remedy, std::string reason);

    // Acknowledgements that do not come (ack_timeouts.cpp).
    void expect_answer(Flight& flight);
    void watch_silence(TimePoint now);
    void give_up(Flight& flight, std::uint16_t id);
    void give_up_on_silence(TimePoint now);
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
    const MqttOptions& options_;  // the settings'
    const Host host_;
    std::shared_ptr<Session> session_;
    const std::string client_id_;
    std::optional<Wire> wire_;
    MessageWriter messages_;
    Limits limits_;
    std::size_t window_;
    std::uint32_t keep_alive_s_;
    bool clean_start_ = true;
    bool in_doubt_ = false;  // whether the session that is there is the one that we know
    Session::Doubt doubt_;   // of the connections before this one
    Target target_;          // of a driver that only looks
    std::string told_;       // to such a one: what the broker takes
    bool probes_3_ = false;  // 3.1.1 is only asked whether it is answered

    Phase phase_ = Phase::wire;
    Link link_;
    TimePoint deadline_;  // for the connection to be up
    TimePoint last_heard_;
    TimePoint last_sent_;
    TimePoint now_;  // of the last drive()
    TimePoint up_since_;
    TimePoint quiet_until_;  // nothing goes out: does the broker hang up nevertheless?
    TimePoint abandon_at_ = TimePoint::max();
    TimePoint look_at_ = TimePoint::max();  // no message's patience ends before
    TimePoint free_since_;                  // since then the socket takes all
    std::chrono::milliseconds patience_;    // 0: endless
    std::string renew_why_;                 // not empty: another connection is wanted
    std::string last_refusal_;              // since the last delivery
    bool quiet_ = false;
    bool sent_qos0_ = false;
    bool pinged_ = false;
    bool stalled_ = false;      // the socket had no room for all at the last drive()
    std::size_t leftover_ = 0;  // of the inbox: part of a packet
    bool written_ = false;      // since the last drive(): it is to be called at once

    std::vector<Flight> flights_;  // by packet id; 0 is none
    std::vector<std::uint16_t> free_ids_;
    std::size_t in_flight_ = 0;  // published or released
    std::size_t ticketed_ = 0;   // of the flights, those with a ticket
    std::size_t reserved_ = 0;   // reserved or abandoned
    std::size_t silent_ = 0;
    std::deque<Unwritten> unwritten_;
    std::uint64_t queued_bytes_ = 0;  // ever put into the outbox

    std::vector<Settlement> settlements_;
    std::size_t settled_ = 0;  // of them, drained
};

}  // namespace eventbus::broker::mqtt
