// What it is: the MQTT driver: what one that only looks has found out; see mqtt_driver.hpp.
// Who calls it: eventbus.test_broker and test_route, through broker::Driver.
// Never: sends anything: what a broker takes, it says in its answer to the login.
#include "broker/mqtt/mqtt_driver.hpp"
#include "broker/mqtt/reasons.hpp"
#include "broker/mqtt/text.hpp"

namespace eventbus::broker::mqtt {

namespace {

constexpr std::size_t longest_shown = 200;

}  // namespace

void MqttDriver::note_limits(const Connack& connack) {
    if (limits_.version != MqttVersion::v5) {
        told_ = "MQTT 3.1.1, which tells nothing of the broker and its limits, and whose messages carry no ids";
        return;
    }
    told_ = "MQTT 5, which does not tell what the broker is; QoS " + std::to_string(connack.maximum_qos) +
            " at most, " + std::to_string(connack.receive_maximum) + " open messages, " +
            (connack.maximum_packet == 0 ? std::string("packets of any size")
                                         : "packets of at most " + std::to_string(connack.maximum_packet) + " bytes") +
            (connack.retain_available ? ", retains messages" : ", does not retain messages") + ", " +
            (keep_alive_s_ == 0 ? std::string("no heartbeat") : "heartbeat " + std::to_string(keep_alive_s_) + " s");
}

Finding MqttDriver::look_at_destination() const {
    Finding found{"destination", Finding::Answer::no, lacks(route_of(target_.addressing), limits_),
                  "Change the route's options with eventbus.alter_route. Until then its events wait."};
    if (!found.detail.empty() || target_.addressing.varies) return found;
    found.hint = "Name another topic with eventbus.alter_route. Until then each event becomes a dead letter.";
    constexpr std::size_t around = 7;  // the packet's head, the name's length
    if (const std::string flaw = flaw_in_name(target_.name); !flaw.empty())
        found.detail = "the topic's name " + flaw;
    else if (limits_.maximum_packet > 0 && target_.name.size() + around > limits_.maximum_packet)
        found.detail = "the topic's name alone is too large for the broker";
    else
        found = {"destination",
                 Finding::Answer::yes,
                 "topic '" + printable(target_.name, longest_shown) + "' needs not be made",
                 {}};
    return found;
}

Look MqttDriver::look() const {
    Look look;
    if (settings_.look_ms == 0 || !wire_->look(look)) return look;
    look.step = "login";
    if (told_.empty()) return look;
    const Url& url = settings_.url;
    look.found("login", (url.has_user ? "as user \"" + printable(url.user, longest_shown) + '"'
                                      : std::string("without a user")) +
                            ", " + shown_client_id() + " (which is not the sender's), a session of its own, no will");
    look.step = "broker";
    look.found("broker", told_);
    if (!target_.name.empty()) {
        Finding destination = look_at_destination();
        const bool is_well = destination.answer == Finding::Answer::yes;
        if (!destination.detail.empty()) look.findings.push_back(std::move(destination));
        if (is_well)
            look.found("permission",
                       limits_.version == MqttVersion::v5
                           ? "MQTT does not tell before a message is published whether the client may publish to it"
                           : "MQTT 3.1.1 does not tell whether the client may publish to it, before or after",
                       Finding::Answer::unknown);
    }
    look.done = phase_ == Phase::up;
    return look;
}

}  // namespace eventbus::broker::mqtt
