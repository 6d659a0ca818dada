// What it is: MQTT's reason codes; see reasons.hpp.
// Who calls it: the MQTT driver, with what the broker answered.
// Never: decides about anything but a code.
#include "broker/mqtt/reasons.hpp"

#include <algorithm>
#include <array>

namespace eventbus::broker::mqtt {

namespace {

struct Reason {
    std::uint8_t code;
    const char* words;
    Remedy event;  // of PUBACK and PUBREC
    Remedy link;   // of CONNACK and DISCONNECT
};

constexpr Remedy retry = Remedy::retry;
constexpr Remedy park = Remedy::park;
constexpr Remedy fix = Remedy::fix_settings;
constexpr Remedy forbidden = Remedy::forbidden;
constexpr Remedy unclear = Remedy::unclear;  // what a PUBACK or PUBREC has no reason to say

constexpr std::array<Reason, 34> reasons = {{
    {0x00, "normal disconnection", retry, retry},
    {0x80, "unspecified error", retry, retry},
    {0x81, "malformed packet", park, retry},
    {0x82, "protocol error", unclear, retry},
    {0x83, "implementation specific error", retry, retry},
    {0x84, "unsupported protocol version", unclear, fix},
    {0x85, "client identifier not valid", unclear, fix},
    {0x86, "bad user name or password", fix, fix},
    {0x87, "not authorized", forbidden, fix},
    {0x88, "server unavailable", retry, retry},
    {0x89, "server busy", retry, retry},
    {0x8a, "banned", fix, fix},
    {0x8b, "server shutting down", retry, retry},
    {0x8c, "bad authentication method", fix, fix},
    {0x8d, "keep alive timeout", unclear, retry},
    {0x8e, "session taken over by another client with the same client id", unclear, retry},
    {0x8f, "topic filter invalid", park, retry},
    {0x90, "topic name invalid", park, fix},
    {0x91, "packet identifier in use", retry, retry},
    {0x92, "packet identifier not found", retry, retry},
    {0x93, "receive maximum exceeded", retry, retry},
    {0x94, "topic alias invalid", unclear, retry},
    {0x95, "packet too large", park, fix},
    {0x96, "message rate too high", retry, retry},
    {0x97, "quota exceeded", retry, retry},
    {0x98, "administrative action", unclear, retry},
    {0x99, "payload format invalid", park, fix},
    {0x9a, "retain not supported", fix, fix},
    {0x9b, "QoS not supported", fix, fix},
    {0x9c, "use another server", unclear, retry},
    {0x9d, "server moved", unclear, retry},
    {0x9e, "shared subscriptions not supported", unclear, retry},
    {0x9f, "connection rate exceeded", retry, retry},
    {0xa0, "maximum connect time", unclear, retry},
}};

const Reason* find(std::uint8_t code) {
    const auto found =
        std::find_if(reasons.begin(), reasons.end(), [&](const Reason& reason) { return reason.code == code; });
    return found == reasons.end() ? nullptr : &*found;
}

}  // namespace

std::string printable(std::string_view text, std::size_t longest) {
    std::string out;
    for (const char c : text.substr(0, longest)) out += c >= 0x20 && c < 0x7f ? c : '?';
    if (text.size() > longest) out += "...";
    return out;
}

std::string words_of(std::uint8_t code, std::string_view reason) {
    constexpr std::string_view digits = "0123456789abcdef";
    constexpr std::size_t longest_reason = 300;
    const Reason* known = find(code);
    std::string text = known ? known->words : "unknown reason";
    text += " (0x";
    text += digits[code >> 4];
    text += digits[code & 15];
    text += ')';
    if (reason.empty()) return text;
    return text + ": " + printable(reason, longest_reason);
}

Remedy remedy_of_event(std::uint8_t code) {
    const Reason* known = find(code);
    return known ? known->event : unclear;
}

Remedy remedy_of_culprit(std::uint8_t code) {
    switch (code) {
        case 0x81:
        case 0x82:
        case 0x90:
        case 0x94:
        case 0x95:
        case 0x99:
            return park;
        case not_authorized:
            return forbidden;
        case 0x9a:
        case 0x9b:
            return fix;
        default:
            return Remedy::none;
    }
}

bool is_own_reason(std::uint8_t code) {
    constexpr std::array<std::uint8_t, 6> codes = {0x8b, taken_over, 0x98, 0x9c, 0x9d, 0xa0};
    return std::find(codes.begin(), codes.end(), code) != codes.end();
}

Remedy remedy_of_link(std::uint8_t code) {
    const Reason* known = find(code);
    return known ? known->link : retry;
}

std::uint8_t connack_code(std::uint8_t code) {
    constexpr std::array<std::uint8_t, 6> of_v3 = {0, unsupported_version, 0x85, 0x88, 0x86, 0x87};
    return code < of_v3.size() ? of_v3[code] : code;
}

}  // namespace eventbus::broker::mqtt
