// What it is: one event as a PUBLISH packet.
// Who calls it: the MQTT driver, when it is offered an event.
// Never: writes half a packet, or one that would make the broker close the connection.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "broker/mqtt/packets.hpp"

namespace eventbus::broker::mqtt {

// What the broker of this connection takes.
struct Limits {
    MqttVersion version = MqttVersion::v5;
    std::size_t maximum_packet = 0;  // bytes; 0: no limit
    int maximum_qos = 2;
    const char* qos_why = "";  // how that was noticed
    bool retain_available = true;
};

// What a route asks for that the broker does not give, in words; empty: nothing.
std::string lacks(const MqttRoute& route, const Limits& limits);

class MessageWriter {
 public:
    explicit MessageWriter(std::string_view source);

    // Appends the packet. Otherwise appends nothing, and says in `refusal` what is wrong and what is to be done.
    // id: for QoS 1 and 2; again: an earlier connection may have sent it under that id.
    bool write(std::string& out, const Outgoing& outgoing, const Limits& limits, std::uint16_t id, bool again,
               Settlement& refusal);

 private:
    std::string fill_properties(const Event& event);
    std::string add_headers(const Event& event);

    std::string source_;
    std::string properties_;
};

}  // namespace eventbus::broker::mqtt
