// What it is: the MQTT driver: what the broker says; see driver.hpp.
// Who calls it: drive().
// Never: trusts a packet that does not fit the moment.
#include <algorithm>

#include "broker/mqtt/driver.hpp"
#include "broker/mqtt/reasons.hpp"

namespace eventbus::broker::mqtt {

namespace {

// MQTT 5 brokers say how many open messages they take; those of 3.1.1 do not, and some drop what is too much.
constexpr std::size_t default_window = 1000;
constexpr std::size_t default_window_v3 = 20;
// How long an old packet id is kept for an event that is not offered again: its route may be gone.
constexpr std::chrono::seconds reservation{60};

}  // namespace

// False when nothing has come.
bool MqttDriver::take_inbox(TimePoint now) {
    if (wire_->inbox().size() == leftover_) return false;
    last_heard_ = now;
    std::size_t consumed = 0;
    while (phase_ == Phase::connack || phase_ == Phase::up) {
        Packet packet;
        const Reading reading = read_packet(wire_->inbox().substr(consumed), packet);
        if (reading == Reading::partial) break;
        if (reading == Reading::broken) {
            fail(Remedy::retry, "the broker sent something that is not MQTT");
            return true;
        }
        consumed += packet.size;
        take(packet);
        if (phase_ == Phase::wire) return true;  // it is another connection by now
    }
    if (phase_ == Phase::down) return true;
    wire_->consume(consumed);
    leftover_ = wire_->inbox().size();
    return true;
}

void MqttDriver::take(const Packet& packet) {
    if (phase_ == Phase::connack) {
        if (packet.type == Type::connack) return take_connack(packet);
        if (packet.type == Type::disconnect) return take_disconnect(packet);
        return fail(Remedy::retry, "the broker answered the login with something else");
    }
    switch (packet.type) {
        case Type::puback:
        case Type::pubrec:
        case Type::pubcomp:
            return take_answer(packet);
        case Type::pingresp:
            pinged_ = false;
            return;
        case Type::disconnect:
            return take_disconnect(packet);
        default:
            return fail(Remedy::retry, "the broker sent a packet that publishers do not get");
    }
}

void MqttDriver::take_connack(const Packet& packet) {
    const auto connack = read_connack(packet.body);
    if (!connack) return fail(Remedy::retry, "the broker sent a malformed answer to the login");
    if (const std::uint8_t code = connack_code(connack->code); code != 0) {
        if (code == unsupported_version && fall_back()) return;
        return fail(remedy_of_link(code), "login refused: " + words_of(code, connack->reason));
    }
    const bool v5 = limits_.version == MqttVersion::v5;
    session_->version = limits_.version;
    limits_.maximum_packet = connack->maximum_packet;
    limits_.maximum_qos = connack->maximum_qos;
    limits_.retain_available = connack->retain_available;
    if (window_ == 0) window_ = v5 ? default_window : default_window_v3;
    window_ = std::min(window_, connack->receive_maximum);
    if (connack->keep_alive_s) keep_alive_s_ = *connack->keep_alive_s;
    phase_ = Phase::up;
    link_.state = LinkState::up;
    resume(connack->session_present && !clean_start_);
}

// The packet ids of the last connection, when the broker still knows them.
void MqttDriver::resume(bool session_present) {
    if (!session_present) session_->lost();
    if (keeps_session()) session_->host = host_.shown();
    std::size_t highest = 0;
    for (const auto& [key, past] : session_->past) {
        if (past.stage == Session::Stage::complete) continue;
        const bool received = past.stage == Session::Stage::received;
        Flight& known = flight(past.id);
        known.state = received ? Flight::State::released : Flight::State::reserved;
        known.qos = 2;
        highest = std::max<std::size_t>(highest, past.id);
        if (received) {
            append_release(wire_->outbox(), past.id);
            ++in_flight_;
        } else {
            ++reserved_;
        }
    }
    for (std::size_t id = 1; id < highest; ++id) {
        if (flights_[id].state == Flight::State::free) free_ids_.push_back(static_cast<std::uint16_t>(id));
    }
    if (reserved_ > 0) abandon_at_ = last_heard_ + reservation;
}

// If the broker has the message, PUBREL completes it.
void MqttDriver::abandon(std::uint16_t id) {
    flights_[id].state = Flight::State::abandoned;
    append_release(wire_->outbox(), id);
}

// Events that were not offered again must not hold the broker's receive maximum for ever.
void MqttDriver::abandon_reserved() {
    abandon_at_ = TimePoint::max();
    for (std::size_t id = 1; id < flights_.size(); ++id) {
        if (flights_[id].state == Flight::State::reserved) abandon(static_cast<std::uint16_t>(id));
    }
    std::erase_if(session_->past, [](const auto& entry) { return entry.second.stage == Session::Stage::published; });
}

void MqttDriver::take_answer(const Packet& packet) {
    const auto answer = read_answer(packet);
    if (!answer) return fail(Remedy::retry, "the broker sent a malformed answer");
    // What is not ours has been settled before, or never was.
    if (answer->id == 0 || answer->id >= flights_.size()) return;
    Flight& open = flights_[answer->id];
    const bool refused = answer->code >= first_failure;
    switch (packet.type) {
        case Type::pubcomp:
            if (open.state == Flight::State::released || open.state == Flight::State::abandoned)
                complete(answer->id, open);
            return;
        case Type::pubrec:
            if (open.qos != 2) return;
            if (open.state == Flight::State::released) return append_release(wire_->outbox(), answer->id);
            if (open.state != Flight::State::published) return;
            if (!refused) {
                open.state = Flight::State::released;
                return append_release(wire_->outbox(), answer->id);
            }
            break;
        default:
            if (open.qos != 1 || open.state != Flight::State::published) return;
            break;
    }
    if (refused)
        settled({open.ticket, Verdict::refused, remedy_of_event(answer->code),
                 "the broker refused the message: " + words_of(answer->code, answer->reason)});
    else
        settled({open.ticket, Verdict::delivered, Remedy::none, {}});
    --ticketed_;
    --in_flight_;
    free(answer->id);
}

void MqttDriver::complete(std::uint16_t id, Flight& open) {
    if (open.has_ticket) {
        settled({open.ticket, Verdict::delivered, Remedy::none, {}});
        --ticketed_;
    }
    if (open.state == Flight::State::released) {
        --in_flight_;
        // An earlier connection's, not offered again yet: when it is, it counts as delivered.
        if (!open.has_ticket) {
            for (auto& [key, past] : session_->past) {
                if (past.id == id && past.stage == Session::Stage::received) past.stage = Session::Stage::complete;
            }
        }
    } else {
        --reserved_;
    }
    free(id);
}

void MqttDriver::take_disconnect(const Packet& packet) {
    const auto answer = read_answer(packet);
    const std::uint8_t code = answer ? answer->code : 0;
    std::string words = "the broker ended the connection: " + words_of(code, answer ? answer->reason : "");
    if (!blames_an_event(code)) return fail(remedy_of_link(code), std::move(words));
    // Which one it was shows when they go out one at a time.
    if (open_tickets() > 1) {
        session_->alone = open_tickets();
    } else {
        for (Flight& open : flights_) {
            if (!open.has_ticket) continue;
            settled({open.ticket, Verdict::refused, Remedy::park, words});
            open.has_ticket = false;
        }
        for (const Unwritten& message : unwritten_) settled({message.ticket, Verdict::refused, Remedy::park, words});
        unwritten_.clear();
        session_->lost();
    }
    fail(Remedy::retry, std::move(words));
}

}  // namespace eventbus::broker::mqtt
