// What it is: the MQTT driver: acknowledgements that do not come; see mqtt_driver.hpp.
// Who calls it: drive(), and what puts a message under way.
// Never: sends a message twice over one connection under one packet id.
//
// A message whose answer does not come in time is refused for now: its key waits, the others continue. The broker may
// still know its packet id, so that it is not used again over this connection, and takes up room in the window. A
// message without a session goes out again under another id. One that a session remembers waits for the next
// connection, where it goes out under its old id, so that a broker that has it all the same takes it once.
#include <algorithm>

#include "broker/mqtt/mqtt_driver.hpp"

namespace eventbus::broker::mqtt {

namespace {

constexpr std::chrono::milliseconds most_patience{600'000};

const char* name_of(Type type) {
    switch (type) {
        case Type::puback:
            return "PUBACK";
        case Type::pubrec:
            return "PUBREC";
        default:
            return "PUBCOMP";
    }
}

}  // namespace

void MqttDriver::expect_answer(Flight& flight) {
    flight.since = now_;
    if (patience_.count() > 0) look_at_ = std::min(look_at_, now_ + patience_);
}

// While the socket takes nothing from us, no message grows older.
void MqttDriver::watch_silence(TimePoint now) {
    if (now >= look_at_) {
        // Our own process may have slept: what has come meanwhile counts.
        wire_->drive({.read = true, .write = false});
        take_inbox(now);
        if (phase_ == Phase::up) give_up_on_silence(now);
    }
    if (phase_ != Phase::up) return;
    if (renew_why_.empty() && silent_ > 0 && 2 * silent_ >= window_)
        renew_why_ =
            std::to_string(silent_) + " messages were not acknowledged, which leaves too little room for others";
    if (renew_why_.empty()) return;
    session_->patience = patience_;
    link_.goodbye = true;
    fail(Remedy::retry, std::move(renew_why_));
}

// Where a broker is merely slow, more patience saves repetitions.
void MqttDriver::give_up_on_silence(TimePoint now) {
    const std::size_t before = silent_;
    look_at_ = TimePoint::max();
    for (std::size_t id = 1; id < flights_.size(); ++id) {
        Flight& flight = flights_[id];
        if (!flight.awaits_answer()) continue;
        const TimePoint due = std::max(flight.since, free_since_) + patience_;
        if (due <= now)
            give_up(flight, static_cast<std::uint16_t>(id));
        else
            look_at_ = std::min(look_at_, due);
    }
    if (silent_ > before) patience_ = std::min(2 * patience_, std::max(patience_, most_patience));
}

void MqttDriver::give_up(Flight& flight, std::uint16_t id) {
    flight.silent = true;
    ++silent_;
    if (!flight.has_ticket) return;
    std::string reason =
        shown(flight) + ": no acknowledgement within " + std::to_string(patience_.count() / 1000) + " s";
    if (flight.odd_answer != Type::none)
        reason += std::string("; the broker answered ") + name_of(flight.odd_answer) +
                  ", which does not belong to a message with QoS " + std::to_string(flight.qos);
    if (flight.qos == 2 && session_->host == host_.shown())
        session_->past[{flight.event, flight.lane, std::string(flight.name)}] = {
            id, flight.state == Flight::State::released ? Session::Stage::received : Session::Stage::published,
            flight.received};
    settled({flight.ticket, Verdict::refused, Remedy::retry, std::move(reason)});
    flight.has_ticket = false;
    flight.name = {};
    --ticketed_;
}

}  // namespace eventbus::broker::mqtt
