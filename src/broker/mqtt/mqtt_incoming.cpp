// What it is: the MQTT driver: what the broker says; see mqtt_driver.hpp.
// Who calls it: drive().
// Never: trusts a packet that does not fit the moment.
#include <algorithm>
#include <utility>
#include <vector>

#include "broker/mqtt/mqtt_driver.hpp"
#include "broker/mqtt/reasons.hpp"
#include "broker/stream/other_protocols.hpp"

namespace eventbus::broker::mqtt {

namespace {

// MQTT 5 brokers say how many open messages they take; those of 3.1.1 do not, and some drop what is too much.
constexpr std::size_t default_window = 1000;
constexpr std::size_t default_window_v3 = 20;
// How long an old packet id is kept for an event that is not offered again: its route may be gone.
constexpr std::chrono::seconds reservation{60};
// After hang-ups that another client with our id may be the cause of; in that time such a client comes back.
constexpr std::chrono::seconds quiet_time{2};

}  // namespace

// False when nothing has come.
bool MqttDriver::take_inbox(TimePoint now) {
    if (wire_->inbox().size() == leftover_) return false;
    last_heard_ = now;
    std::size_t consumed = 0;
    if (phase_ == Phase::connack) {
        const std::string another = other_protocol(wire_->inbox(), settings_.url.scheme);
        if (!another.empty()) {
            fail(Remedy::retry, another);
            return true;
        }
        if (may_be_other_protocol(wire_->inbox())) {
            leftover_ = wire_->inbox().size();
            return true;
        }
    }
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
            return fail(Remedy::retry, "the broker sent a packet that publishers do not get (type " +
                                           std::to_string(static_cast<unsigned>(packet.type)) + ')');
    }
}

void MqttDriver::take_connack(const Packet& packet) {
    const auto connack = read_connack(packet.body);
    if (!connack) return fail(Remedy::retry, "the broker sent a malformed answer to the login");
    session_->in_doubt = in_doubt_;
    if (const std::uint8_t code = connack_code(connack->code); code != 0) {
        if (code == unsupported_version && may_fall_back()) return fall_back();
        if (probes_3_) session_->doubt[host_.shown()] = doubt_;
        return fail(remedy_of_link(code),
                    "login refused: " + words_of(code, connack->reason) +
                        (code == unsupported_version && limits_.version == MqttVersion::v5 ? "; " + ask_for_3() : "") +
                        (settings_.look_ms > 0 && !options_.client_id.empty()
                             ? "; this was " + shown_client_id() + ", for the sender's own is left to the sender"
                             : ""));
    }
    const bool v5 = limits_.version == MqttVersion::v5;
    if (probes_3_) return answers_only_3();
    session_->took_5 |= v5;
    session_->worked = true;
    limits_.maximum_packet = connack->maximum_packet;
    limits_.maximum_qos = connack->maximum_qos;
    limits_.retain_available = connack->retain_available;
    if (window_ == 0) window_ = v5 ? default_window : default_window_v3;
    window_ = std::min(window_, connack->receive_maximum);
    if (connack->keep_alive_s) keep_alive_s_ = *connack->keep_alive_s;
    if (settings_.look_ms > 0) note_limits(*connack);
    // What it kept against our will may hold packet ids, under which it would swallow new messages.
    if (connack->session_present && clean_start_) lower_qos(" (it keeps a session that it was told to forget)");
    phase_ = Phase::up;
    link_.state = LinkState::up;
    up_since_ = now_;
    if (session_->hang_ups > 1) {
        quiet_ = true;
        quiet_until_ = now_ + quiet_time;
    }
    resume(connack->session_present && !clean_start_);
}

// Said before it is done: this is the one moment at which somebody is told. What has been restarted takes MQTT 5 by the
// next connection.
void MqttDriver::answers_only_3() {
    doubt_.answers_3 = true;
    session_->doubt[host_.shown()] = doubt_;
    append_good_bye(wire_->outbox(), limits_.version);
    wire_->flush();
    fail(
        Remedy::retry,
        "the broker hangs up on MQTT 5 and answers MQTT 3.1.1, which is used from the next connection on unless MQTT 5 "
        "works by then (messages of 3.1.1 carry no ids; the broker option version chooses one)");
}

// The packet ids of the last connection, when the broker still knows them.
void MqttDriver::resume(bool session_present) {
    if (!session_present) session_->lost();
    if (std::exchange(session_->in_doubt, false)) give_back_received();
    if (keeps_session()) session_->host = host_.shown();
    std::vector<const Session::StreamHistory*> received;
    for (const auto& [key, past] : session_->past) {
        if (past.stage == Session::Stage::complete) continue;
        Flight& known = flight(past.id);
        known.qos = 2;
        known.resumed = true;
        if (past.stage == Session::Stage::received) {
            received.push_back(&past);
            continue;
        }
        known.state = Flight::State::reserved;
        ++reserved_;
    }
    // What the broker hands on when it is released is handed on in the order in which it came.
    std::ranges::sort(received, {}, &Session::StreamHistory::order);
    for (const Session::StreamHistory* past : received) {
        Flight& known = flight(past->id);
        known.state = Flight::State::released;
        known.received = past->order;
        append_release(wire_->outbox(), past->id);
        expect_answer(known);
        ++in_flight_;
    }
    for (std::size_t id = 1; id < flights_.size(); ++id) {
        if (flights_[id].state == Flight::State::free) free_ids_.push_back(static_cast<std::uint16_t>(id));
    }
    if (reserved_ > 0) abandon_at_ = last_heard_ + reservation;
}

// A broker answers PUBREL with PUBCOMP also where it knows nothing of the message, as in a session that is another one
// by now: these go out again.
void MqttDriver::give_back_received() {
    std::erase_if(session_->past, [&](const auto& entry) {
        const auto& [id, stage, order] = entry.second;
        if (stage != Session::Stage::received) return false;
        flight(id).resumed = true;
        ++reserved_;
        abandon(id);
        return true;
    });
}

// If the broker has the message, PUBREL completes it.
void MqttDriver::abandon(std::uint16_t id) {
    flights_[id].state = Flight::State::abandoned;
    expect_answer(flights_[id]);
    append_release(wire_->outbox(), id);
}

// Events that were not offered again must not hold the broker's receive maximum for ever.
void MqttDriver::abandon_reserved() {
    abandon_at_ = TimePoint::max();
    for (std::size_t id = 1; id < flights_.size(); ++id) {
        if (flights_[id].state == Flight::State::reserved) abandon(static_cast<std::uint16_t>(id));
    }
    std::erase_if(session_->past, [&](const auto& entry) {
        const auto& [id, stage, order] = entry.second;
        return stage == Session::Stage::published && flights_[id].state == Flight::State::abandoned;
    });
}

void MqttDriver::take_answer(const Packet& packet) {
    const auto answer = read_answer(packet);
    if (!answer) return fail(Remedy::retry, "the broker sent a malformed answer");
    // What is not ours has been settled before, or never was.
    if (answer->id == 0 || answer->id >= flights_.size()) return;
    Flight& open = flights_[answer->id];
    const bool is_published = open.state == Flight::State::published;
    const bool refused = answer->code >= first_failure;
    switch (packet.type) {
        case Type::pubcomp:
            if (open.state == Flight::State::released || open.state == Flight::State::abandoned)
                return take_complete(*answer, open);
            break;
        case Type::pubrec:
            if (open.state == Flight::State::released && !refused) return release_again(answer->id);
            if (is_published && refused) return conclude(*answer, open);
            if (is_published && open.qos == 2) return received(answer->id, open);
            break;
        default:
            if (is_published) return conclude(*answer, open);
            break;
    }
    open.odd_answer = packet.type;  // told when nothing else comes
}

void MqttDriver::release_again(std::uint16_t id) {
    append_release(wire_->outbox(), id);
    constexpr std::size_t bytes = 4;
    if (!wire_->may_answer(bytes)) fail(Remedy::retry, Stream::reads_no_answers);
}

void MqttDriver::lower_qos(const char* why) {
    if (limits_.maximum_qos < 2) return;
    limits_.maximum_qos = 1;
    limits_.qos_why = why;
}

// PUBREC.
void MqttDriver::received(std::uint16_t id, Flight& open) {
    open.state = Flight::State::released;
    open.received = ++session_->received;
    append_release(wire_->outbox(), id);
    if (!open.silent) return expect_answer(open);
    Session::StreamHistory* past = session_->find(id);
    if (past == nullptr) return;  // its event goes out under another id
    past->stage = Session::Stage::received;
    past->order = open.received;
    open.silent = false;
    --silent_;
    expect_answer(open);
}

void MqttDriver::take_complete(const Answer& answer, Flight& open) {
    // To an earlier connection's PUBREL "packet identifier not found" says that it had arrived.
    if (answer.code < first_failure || !open.has_ticket || open.resumed) return complete(answer.id, open);
    refuse(open, answer);
    open.has_ticket = false;
    --ticketed_;
    --in_flight_;
    free(answer.id);
}

void MqttDriver::refuse(const Flight& open, const Answer& answer) {
    last_refusal_ = "the broker refused " + shown(open) + ": " + words_of(answer.code, answer.reason);
    settled({open.ticket, Verdict::refused, remedy_of_event(answer.code), last_refusal_});
}

// A PUBLISH has got its answer, and nothing more is to come.
void MqttDriver::conclude(const Answer& answer, Flight& open) {
    const bool refused = answer.code >= first_failure;
    if (open.has_ticket) {
        if (refused)
            refuse(open, answer);
        else if (open.qos == 2)  // PUBACK: it has the message, and grants no more than QoS 1
            settled({open.ticket, Verdict::delivered, Remedy::fix_settings,
                     "the broker takes QoS 1 at most (it answers QoS 2 with PUBACK), the route has QoS 2"});
        else
            settled({open.ticket, Verdict::delivered, Remedy::none, {}});
        open.has_ticket = false;
        --ticketed_;
    } else if (Session::StreamHistory* past = refused ? nullptr : session_->find(answer.id)) {
        past->stage = Session::Stage::complete;
    } else {
        session_->forget(answer.id);
    }
    --in_flight_;
    if (answer.code != id_in_use) return free(answer.id);
    ++reserved_;
    abandon(answer.id);
}

void MqttDriver::complete(std::uint16_t id, Flight& open) {
    if (open.has_ticket) {
        settled({open.ticket, Verdict::delivered, Remedy::none, {}});
        --ticketed_;
    }
    if (open.state == Flight::State::released) {
        --in_flight_;
        // Not offered again yet: when it is, it counts as delivered.
        Session::StreamHistory* past = open.has_ticket ? nullptr : session_->find(id);
        if (past != nullptr) past->stage = Session::Stage::complete;
    } else {
        --reserved_;
    }
    free(id);
}

void MqttDriver::take_disconnect(const Packet& packet) {
    const auto answer = read_answer(packet);
    const std::uint8_t code = answer ? answer->code : 0;
    std::string words = "the broker ended the connection: " + words_of(code, answer ? answer->reason : "");
    if (code == taken_over && phase_ == Phase::up) return put_out(words);
    const Remedy remedy = phase_ == Phase::up ? remedy_of_culprit(code) : Remedy::none;
    if (remedy == Remedy::none) {
        link_.goodbye = is_own_reason(code);
        return fail(remedy_of_link(code), std::move(words));
    }
    // Which one it was shows when they go out one at a time.
    if (open_tickets() > 1) {
        session_->alone = open_tickets();
        return fail(Remedy::retry, std::move(words));
    }
    // A message with QoS 0 is gone before its refusal comes.
    if (open_tickets() == 0)
        return fail(remedy == Remedy::park || sent_qos0_ ? Remedy::retry : remedy_of_link(code), std::move(words));
    for (Flight& open : flights_) {
        if (!open.has_ticket) continue;
        words += ", at " + shown(open);
        settled({open.ticket, Verdict::refused, remedy, words});
        open.has_ticket = false;
    }
    for (const Unwritten& message : unwritten_) settled({message.ticket, Verdict::refused, remedy, words});
    unwritten_.clear();
    session_->lost();
    fail(Remedy::retry, std::move(words));
}

}  // namespace eventbus::broker::mqtt
