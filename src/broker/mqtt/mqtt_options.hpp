// What it is: the options that only MQTT brokers and routes have.
// Who calls it: mqtt_module.cpp reads them, the driver looks them up.
// Never: holds what all protocols have.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "broker/driver.hpp"

namespace eventbus::broker::mqtt {

// What the broker publishes for us when we are gone without a good-bye.
struct Will {
    std::string topic;
    std::string payload;
    int qos = 0;
    bool retain = false;
};

enum class MqttVersion : std::uint8_t { any = 0, v3_1_1 = 4, v5 = 5 };  // the protocol's own numbers

struct MqttOptions {
    std::uint32_t confirm_timeout_s = 60;    // "confirm_timeout": 0 turns it off
    MqttVersion version = MqttVersion::any;  // "version": 5 first, then 3.1.1
    std::string client_id;                   // "client_id"; empty: one that nobody else has
    std::uint32_t session_expiry_s = 3600;   // "session_expiry", MQTT 5; 0: no session
    std::optional<Will> will;                // "will"
};

struct MqttRoute {
    int qos = 1;
    bool retain = false;
};

MqttOptions read_options(const Options& options);  // throws BadInput
MqttRoute read_route_options(const Options& options);

inline const MqttOptions& options_of(const BrokerSettings& settings) {
    return *static_cast<const MqttOptions*>(settings.own.get());
}
inline const MqttRoute& route_of(const Addressing& addressing) {
    return *static_cast<const MqttRoute*>(addressing.own.get());
}

}  // namespace eventbus::broker::mqtt
