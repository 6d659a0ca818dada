// What it is: MQTT control packets to and from bytes: what a client that only publishes says and hears.
// Who calls it: the MQTT driver and its messages.
// Never: copies what it reads, or believes a length.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "broker/mqtt/mqtt_options.hpp"

namespace eventbus::broker::mqtt {

inline constexpr std::size_t longest_string = 65535;         // MQTT 5, 1.5.4
inline constexpr std::size_t longest_remaining = 268435455;  // 1.5.5: four bytes of seven bits

enum class Type : std::uint8_t {
    none = 0,
    connect = 1,
    connack = 2,
    publish = 3,
    puback = 4,
    pubrec = 5,
    pubrel = 6,
    pubcomp = 7,
    pingreq = 12,
    pingresp = 13,
    disconnect = 14,
};

// Properties that we send or heed, by their identifiers.
enum class Property : std::uint8_t {
    payload_format = 0x01,
    message_expiry = 0x02,
    content_type = 0x03,
    response_topic = 0x08,
    correlation_data = 0x09,
    session_expiry = 0x11,
    server_keep_alive = 0x13,
    reason_string = 0x1f,
    receive_maximum = 0x21,
    maximum_qos = 0x24,
    retain_available = 0x25,
    user_property = 0x26,
    maximum_packet = 0x27,
};

// Writing.
inline void append_byte(std::string& out, unsigned byte) {
    out.push_back(static_cast<char>(byte));
}
inline void append_short(std::string& out, std::size_t number) {
    append_byte(out, static_cast<unsigned>(number >> 8 & 0xff));
    append_byte(out, static_cast<unsigned>(number & 0xff));
}
inline void append_long(std::string& out, std::uint32_t number) {
    append_short(out, number >> 16);
    append_short(out, number & 0xffff);
}
inline void append_string(std::string& out, std::string_view text) {  // of at most longest_string bytes
    append_short(out, text.size());
    out.append(text);
}
void append_variable(std::string& out, std::size_t number);
std::size_t variable_size(std::size_t number);
inline void append_property(std::string& out, Property property) {
    append_byte(out, static_cast<unsigned>(property));
}
inline void append_property(std::string& out, Property property, std::string_view text) {
    append_property(out, property);
    append_string(out, text);
}
inline void append_user_property(std::string& out, std::string_view name, std::string_view value) {
    append_property(out, Property::user_property, name);
    append_string(out, value);
}

struct Connect {
    MqttVersion version = MqttVersion::v5;
    bool clean_start = true;
    std::uint32_t session_expiry_s = 0;
    std::uint32_t keep_alive_s = 0;
    std::string_view client_id;
    const BrokerSettings* settings = nullptr;  // user and password
    const Will* will = nullptr;                // may be missing
};
void append_connect(std::string& out, const Connect& connect);
void append_release(std::string& out, std::uint16_t id);  // PUBREL
void append_ping(std::string& out);
void append_good_bye(std::string& out, MqttVersion version);  // DISCONNECT; the session ends with it

// Reading.
struct Packet {
    Type type = Type::connect;
    std::string_view body;
    std::size_t size = 0;  // of the whole packet
};
enum class Reading : std::uint8_t { partial, whole, broken };
Reading read_packet(std::string_view bytes, Packet& packet);

struct Connack {
    bool session_present = false;
    std::uint8_t code = 0;
    std::string_view reason;
    std::size_t receive_maximum = 65535;
    std::size_t maximum_packet = 0;  // bytes; 0: no limit
    int maximum_qos = 2;
    bool retain_available = true;
    std::optional<std::uint32_t> keep_alive_s;
};
// PUBACK, PUBREC, PUBCOMP; DISCONNECT is the same without an id.
struct Answer {
    std::uint16_t id = 0;
    std::uint8_t code = 0;
    std::string_view reason;
};
// Empty: the packet is malformed.
std::optional<Connack> read_connack(std::string_view body);
std::optional<Answer> read_answer(const Packet& packet);

}  // namespace eventbus::broker::mqtt
