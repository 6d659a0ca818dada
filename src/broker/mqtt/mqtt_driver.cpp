// What it is: the MQTT driver: what goes out, time, and the faces of broker::Driver; see mqtt_driver.hpp.
// Who calls it: delivery, through broker::Driver.
// Never: blocks, logs or retries.
#include "broker/mqtt/mqtt_driver.hpp"

#include <algorithm>
#include <utility>

#include "broker/mqtt/reasons.hpp"
#include "broker/stream/other_protocols.hpp"

namespace eventbus::broker::mqtt {

namespace {

constexpr std::size_t most_ids = 65535;
// Bytes that await the socket; the message that steps over the limit is let through, whatever its size.
constexpr std::size_t most_unsent = 1 << 20;
constexpr std::size_t most_past = 100'000;
constexpr std::size_t longest_shown = 100;
// A connection that ended sooner after its login than this was not a good one.
constexpr std::chrono::seconds soon{60};
constexpr unsigned suspicious_hang_ups = 3;  // in a row
constexpr unsigned doubtful_hang_ups = 3;    // on CONNECT, in a row

std::string seconds_text(std::uint64_t ms) {
    return ms % 1000 == 0 ? std::to_string(ms / 1000) + " s" : std::to_string(ms) + " ms";
}

BrokerSettings fit_to_look(BrokerSettings settings) {
    settings.options.connect_timeout_ms = settings.login_ms(settings.options.connect_timeout_ms);
    return settings;
}

}  // namespace

MqttDriver::MqttDriver(const BrokerSettings& settings, unsigned attempt, TimePoint now)
    : settings_(fit_to_look(settings)),
      options_(options_of(settings_)),
      host_(settings.url.hosts[attempt % settings.url.hosts.size()]),
      session_(settings.look_ms > 0 ? session_to_look(settings) : session_of(settings)),
      client_id_(session_->client_id),
      messages_(settings.source),
      window_(settings.options.window),
      keep_alive_s_(settings.options.heartbeat_s),
      deadline_(now + std::chrono::milliseconds(settings_.options.connect_timeout_ms)),
      last_heard_(now),
      last_sent_(now),
      now_(now),
      up_since_(now),
      free_since_(now),
      patience_(options_.confirm_timeout_s * 1000),
      flights_(1) {
    if (patience_.count() > 0) patience_ = std::max(patience_, std::exchange(session_->patience, {}));
    const MqttVersion wanted = options_.version;
    limits_.version = wanted == MqttVersion::any ? MqttVersion::v5 : wanted;
    doubt_ = std::exchange(session_->doubt[host_.shown()], {});
    wire_.emplace(host_, settings_);
}

// Says good-bye where that takes no waiting: the broker keeps its will to itself, and forgets the session.
MqttDriver::~MqttDriver() {
    if (phase_ != Phase::up || wire_->state() != Stream::State::open || wire_->unsent() > 0) return;
    append_good_bye(wire_->outbox(), limits_.version);
    wire_->flush();
    session_->lost();
}

Interest MqttDriver::interest() const {
    return phase_ == Phase::down ? Interest() : wire_->interest();
}

TimePoint MqttDriver::wake_at() const {
    if (written_ || settled_ < settlements_.size()) return TimePoint::min();
    if (phase_ == Phase::down) return TimePoint::max();
    if (phase_ != Phase::up) return deadline_;
    TimePoint wake = std::min(abandon_at_, look_at_);
    if (quiet_) wake = std::min(wake, quiet_until_);
    if (keep_alive_s_ == 0) return wake;
    const std::chrono::seconds interval(keep_alive_s_);
    wake = std::min(wake, last_heard_ + 2 * interval);
    if (!pinged_ && wire_->unsent() == 0) wake = std::min(wake, std::min(last_sent_, last_heard_) + interval / 2);
    return wake;
}

Link MqttDriver::drive(Ready ready, TimePoint now) {
    if (phase_ == Phase::down) return link_;
    now_ = now;
    if (stalled_) free_since_ = now;
    if (now >= quiet_until_) quiet_ = false;
    written_ = false;
    const std::size_t unsent = wire_->unsent();
    wire_->drive(ready);
    note_progress(unsent, now);
    if (phase_ == Phase::wire && wire_->state() == Stream::State::open) begin(now);
    take_inbox(now);
    if (phase_ != Phase::down) keep_time(now);
    if (phase_ != Phase::down) move_bytes(now);
    if (phase_ == Phase::up) watch_silence(now);
    if (phase_ != Phase::down && wire_->state() == Stream::State::closed) {
        take_inbox(now);  // its last words
        if (phase_ != Phase::down) wire_closed();
    }
    return link_;
}

bool MqttDriver::keeps_session() const {
    return limits_.version == MqttVersion::v5 && options_.session_expiry_s > 0 && session_->exclusive;
}

void MqttDriver::begin(TimePoint now) {
    phase_ = Phase::connack;
    clean_start_ = !keeps_session() || session_->host != host_.shown();
    in_doubt_ = session_->in_doubt;
    session_->in_doubt |= !clean_start_;
    // Who only looks leaves no will: nobody hears of it, however it ends.
    const bool leaves_will = options_.will && settings_.look_ms == 0;
    append_connect(wire_->outbox(), {.version = limits_.version,
                                     .clean_start = clean_start_,
                                     .session_expiry_s = session_->exclusive ? options_.session_expiry_s : 0,
                                     .keep_alive_s = settings_.options.heartbeat_s,
                                     .client_id = client_id_,
                                     .settings = &settings_,
                                     .will = leaves_will ? &*options_.will : nullptr});
    last_sent_ = last_heard_ = now;
}

void MqttDriver::move_bytes(TimePoint now) {
    const std::size_t unsent = wire_->unsent();
    if (unsent > 0) {
        wire_->flush();
        note_progress(unsent, now);
    }
    stalled_ = wire_->unsent() > 0;
    settle_written();
}

// What the socket takes at once may only fill the kernel's buffers, also a frozen broker's. What had to wait for room
// there goes out because the broker reads: a sign of life while a large message is on its way.
void MqttDriver::note_progress(std::size_t unsent_before, TimePoint now) {
    if (wire_->unsent() >= unsent_before) return;
    last_sent_ = now;
    if (stalled_) last_heard_ = now;
}

// QoS 0 asks for no more than that the message is on its way.
void MqttDriver::settle_written() {
    if (unwritten_.empty() || wire_->state() != Stream::State::open) return;
    const std::uint64_t unsent = wire_->unsent();
    const std::uint64_t written = queued_bytes_ > unsent ? queued_bytes_ - unsent : 0;
    for (; !unwritten_.empty() && unwritten_.front().end <= written; unwritten_.pop_front())
        settled({unwritten_.front().ticket, Verdict::delivered, Remedy::none, {}});
}

void MqttDriver::keep_time(TimePoint now) {
    if (phase_ != Phase::up) {
        if (now >= deadline_) fail(Remedy::retry, no_answer());
        return;
    }
    if (now >= abandon_at_) abandon_reserved();
    if (keep_alive_s_ == 0) return;
    const std::chrono::seconds interval(keep_alive_s_);
    if (now >= last_heard_ + 2 * interval) {
        // Our own process may have slept: what has come meanwhile counts.
        wire_->drive({.read = true, .write = false});
        if (!take_inbox(now) && wire_->state() == Stream::State::open)
            return fail(Remedy::retry, "the broker was silent for " + seconds_text(2000ULL * keep_alive_s_));
        if (phase_ == Phase::down) return;
    }
    if (!pinged_ && wire_->unsent() == 0 && now >= std::min(last_sent_, last_heard_) + interval / 2) {
        append_ping(wire_->outbox());
        pinged_ = true;
    }
}

std::string MqttDriver::no_answer() const {
    const std::string limit = " within " + seconds_text(settings_.options.connect_timeout_ms);
    if (phase_ == Phase::wire) return wire_->missing() + limit;
    return "the broker did not answer the login" + limit + if_not_5();
}

std::string MqttDriver::if_not_5() const {
    const bool may_be_too_new = limits_.version == MqttVersion::v5 && !session_->took_5;
    return may_be_too_new ? "; if it only knows MQTT 3.1.1, " + ask_for_3() : "";
}

std::string MqttDriver::shown_client_id() const {
    return "client_id \"" + printable(client_id_, longest_shown) + '"';
}

// Of a message that has a ticket, whose name is borrowed.
std::string MqttDriver::shown(const Flight& flight) {
    EventIdText id;
    return "event " + std::string(to_text(flight.event, id)) + " to topic \"" + printable(flight.name, longest_shown) +
           '"';
}

bool MqttDriver::may_fall_back() const {
    return options_.version == MqttVersion::any && limits_.version == MqttVersion::v5;
}

// The same once more with MQTT 3.1.1, within the same deadline.
void MqttDriver::fall_back() {
    limits_.version = MqttVersion::v3_1_1;
    wire_.emplace(host_, settings_);
    phase_ = Phase::wire;
    leftover_ = 0;
    written_ = true;
}

// A broker that only knows MQTT 3.1.1 may just hang up; but so does one that is being restarted, or a proxy in front of
// one, which must not be joined in a version whose messages carry no ids. True: 3.1.1 is asked now.
bool MqttDriver::hung_up_on_5() {
    if (!may_fall_back() || session_->took_5) return false;
    if (++doubt_.hang_ups < doubtful_hang_ups) {
        session_->doubt[host_.shown()] = doubt_;
        return false;
    }
    probes_3_ = !doubt_.answers_3;
    fall_back();
    return true;
}

void MqttDriver::wire_closed() {
    const Remedy remedy = wire_->is_settings_error() ? Remedy::fix_settings : Remedy::retry;
    if (phase_ == Phase::up) {
        if (looks_taken_over())
            return put_out(
                "the server closes each connection soon after the login, with nothing under way, as when "
                "another client connects with our client id");
        return fail(remedy, last_refusal_.empty() ? wire_->error() : last_refusal_ + "; then " + wire_->error());
    }
    if (phase_ != Phase::connack) return fail(remedy, wire_->error());
    if (remedy == Remedy::retry && hung_up_on_5()) return;
    std::string reason = "connection lost before the broker answered the login: " + wire_->error();
    if (wire_->left() && !session_->worked) reason += if_it_wants_tls(settings_.url.scheme) + if_not_5();
    fail(remedy, std::move(reason));
}

// MQTT 3.1.1 has no words for it, and mosquitto says none in MQTT 5 either. A message may be what the broker hangs up
// at, but not while none is under way.
bool MqttDriver::looks_taken_over() {
    if (session_->exclusive) return false;
    if (now_ - up_since_ >= soon) {
        session_->hang_ups = 0;
        return false;
    }
    return ++session_->hang_ups >= suspicious_hang_ups && open_tickets() == 0;
}

// Somebody else has connected with our client id, and the session is theirs.
void MqttDriver::put_out(const std::string& words) {
    session_->lost();
    link_.goodbye = true;
    if (session_->exclusive) {  // this very process was copied: two have drawn the same lot
        session_->client_id = new_client_id(settings_);
        return fail(Remedy::retry, words + "; the next connection has another client id");
    }
    link_.contested = true;
    fail(Remedy::retry, words + "; our " + shown_client_id());
}

void MqttDriver::fail(Remedy remedy, std::string reason) {
    phase_ = Phase::down;
    link_.state = LinkState::down;
    link_.remedy = remedy;
    link_.reason = std::move(reason);
    remember_flights();
    for (const Flight& flight : flights_) {
        if (flight.has_ticket) settled({flight.ticket, Verdict::unknown, Remedy::retry, link_.reason});
    }
    for (const Unwritten& message : unwritten_)
        settled({message.ticket, Verdict::unknown, Remedy::retry, link_.reason});
    flights_.clear();
    unwritten_.clear();
    wire_->close(link_.reason);
}

// What the next connection needs to know of this one's packet ids.
void MqttDriver::remember_flights() {
    if (session_->host != host_.shown()) return;
    // The next connection would use their ids again, which the broker may still know.
    const auto is_abandoned = [](const Flight& flight) { return flight.state == Flight::State::abandoned; };
    if (std::any_of(flights_.begin(), flights_.end(), is_abandoned)) return session_->lost();
    if (session_->past.size() > most_past) {
        session_->lost();
        return session_->past.clear();
    }
    for (std::size_t id = 1; id < flights_.size(); ++id) {
        const Flight& flight = flights_[id];
        if (flight.qos != 2 || !flight.has_ticket) continue;
        session_->past[{flight.event, flight.lane, std::string(flight.name)}] = {
            static_cast<std::uint16_t>(id),
            flight.state == Flight::State::released ? Session::Stage::received : Session::Stage::published,
            flight.received};
    }
}

void MqttDriver::settled(Settlement settlement) {
    if (session_->alone > 0 && settlement.verdict != Verdict::unknown) --session_->alone;
    if (settlement.verdict == Verdict::delivered) last_refusal_.clear();
    settlements_.push_back(std::move(settlement));
}

// Packet ids are ours alone: the lowest ones are used again and again, so that the table stays small.
MqttDriver::Flight& MqttDriver::flight(std::uint16_t id) {
    if (flights_.size() <= id) flights_.resize(std::size_t{id} + 1);
    return flights_[id];
}

std::uint16_t MqttDriver::new_id() {
    if (!free_ids_.empty()) {
        const std::uint16_t id = free_ids_.back();
        free_ids_.pop_back();
        return id;
    }
    if (flights_.size() > most_ids) return 0;
    const auto id = static_cast<std::uint16_t>(flights_.size());
    flights_.emplace_back();
    return id;
}

void MqttDriver::free(std::uint16_t id) {
    if (flights_[id].silent) --silent_;
    flights_[id] = {};
    free_ids_.push_back(id);
}

bool MqttDriver::is_open_to(std::size_t in_flight) const {
    return session_->alone > 0 ? open_tickets() == 0 : in_flight < window_;
}

bool MqttDriver::offer(const Outgoing& outgoing) {
    if (phase_ != Phase::up || quiet_ || settings_.look_ms > 0 || wire_->unsent() >= most_unsent) return false;
    bool taken = false;
    if (!session_->past.empty() && offer_past(outgoing, taken)) return taken;
    if (route_of(*outgoing.addressing).qos == 0) return is_open_to(0) && publish(outgoing, 0, false);
    if (!is_open_to(in_flight_ + reserved_)) return false;
    const std::uint16_t id = new_id();
    return id != 0 && publish(outgoing, id, false);
}

// Whether the event is one of those that were open when an earlier connection broke.
bool MqttDriver::offer_past(const Outgoing& outgoing, bool& taken) {
    const auto found = session_->past.find({outgoing.event->id, outgoing.lane, std::string(outgoing.name)});
    if (found == session_->past.end()) return false;
    const auto [id, stage, order] = found->second;
    const bool is_complete = stage == Session::Stage::complete;
    if (!is_complete && id < flights_.size() && flights_[id].silent) {
        // A message that was not answered goes out again under its id, which a connection may use once.
        renew_why_ = "an event that was not acknowledged is sent again over a new connection";
        written_ = true;
        return true;
    }
    if (!is_complete && (id >= flights_.size() || !flights_[id].awaits_event())) {  // not resumed by this connection
        session_->past.erase(found);
        return false;
    }
    if (is_complete) {
        settled({outgoing.ticket, Verdict::delivered, Remedy::none, {}});
        taken = true;
    } else if (stage == Session::Stage::received) {
        take_over(flights_[id], outgoing);
        taken = true;
    } else if (route_of(*outgoing.addressing).qos != 2) {  // the route has changed
        abandon(id);
    } else if (is_open_to(0)) {
        --reserved_;
        taken = publish(outgoing, id, true);
    } else {
        return true;
    }
    session_->past.erase(found);
    return taken;
}

void MqttDriver::take_over(Flight& flight, const Outgoing& outgoing) {
    flight.has_ticket = true;
    flight.ticket = outgoing.ticket;
    flight.event = outgoing.event->id;
    flight.lane = outgoing.lane;
    flight.name = outgoing.name;
    ++ticketed_;
    expect_answer(flight);
}

bool MqttDriver::publish(const Outgoing& outgoing, std::uint16_t id, bool again) {
    std::string& out = wire_->outbox();
    const std::size_t before = out.size();
    Settlement refusal;
    written_ = true;
    if (!messages_.write(out, outgoing, limits_, id, again, refusal)) {
        if (again) {
            ++reserved_;
            abandon(id);
        } else if (id != 0) {
            free(id);
        }
        settled(std::move(refusal));
        return true;
    }
    queued_bytes_ += out.size() - before;
    if (id == 0) {
        unwritten_.push_back({outgoing.ticket, queued_bytes_});
        sent_qos0_ = true;
        return true;
    }
    Flight& flight = flights_[id];
    flight.state = Flight::State::published;
    flight.qos = static_cast<std::uint8_t>(route_of(*outgoing.addressing).qos);
    take_over(flight, outgoing);
    ++in_flight_;
    return true;
}

std::size_t MqttDriver::settle(std::span<Settlement> out) {
    return drain(settlements_, settled_, out);
}

}  // namespace eventbus::broker::mqtt
