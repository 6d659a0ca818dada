// What it is: MQTT's reason codes: their words, and whom each concerns.
// Who calls it: the MQTT driver, with what the broker answered.
// Never: decides about anything but a code.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/broker_settings.hpp"
#include "core/settlement.hpp"

namespace eventbus::broker::mqtt {

// Codes from here on are failures.
inline constexpr std::uint8_t first_failure = 0x80;

// "not authorized (0x87)", and the broker's own words behind it where it has any.
std::string words_of(std::uint8_t code, std::string_view reason);

// What a PUBACK or PUBREC with a failure asks for.
Remedy remedy_of_event(std::uint8_t code);

// What a DISCONNECT asks for of the message that was alone under way; none: it is no message's fault.
Remedy remedy_of_culprit(std::uint8_t code);

// A DISCONNECT by which the broker leaves, or sends us away, whatever was under way.
bool is_own_reason(std::uint8_t code);

// A refused CONNECT (the code as MQTT 5 has it), or a DISCONNECT: retry or fix_settings.
Remedy remedy_of_link(std::uint8_t code);

// MQTT 3.1.1's return codes of CONNACK have the numbers 1 to 5; as MQTT 5 would say them.
std::uint8_t connack_code(std::uint8_t code);

// What to do about a broker that does not know MQTT 5.
inline std::string ask_for_3() {
    return "set \"version\": \"3.1.1\" in the broker's options";
}

inline constexpr std::uint8_t unsupported_version = 0x84;
inline constexpr std::uint8_t not_authorized = 0x87;
inline constexpr std::uint8_t taken_over = 0x8e;
inline constexpr std::uint8_t id_in_use = 0x91;

// ASCII, cut at so many bytes.
std::string printable(std::string_view text, std::size_t longest);

}  // namespace eventbus::broker::mqtt
