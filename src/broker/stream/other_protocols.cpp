#include "broker/stream/other_protocols.hpp"

#include <algorithm>
#include <array>

namespace eventbus::broker {

namespace {

constexpr std::size_t longest_line = 60;
constexpr std::array<std::string_view, 4> schemes_with_tls = {"amqps", "mqtts", "rediss", "wss"};

struct Greeting {
    std::string_view begins;
    std::string_view protocol;
    std::string_view scheme;  // ours for it; empty: none
};

constexpr std::array<Greeting, 8> greetings = {{
    {"HTTP/", "HTTP", ""},
    {"AMQP", "AMQP", "amqp"},
    {"-ERR", "Redis' protocol", "redis"},
    {"-NOAUTH", "Redis' protocol", "redis"},
    {"-DENIED", "Redis' protocol", "redis"},
    {"INFO {", "NATS", ""},
    {"SSH-", "SSH", ""},
    {"220 ", "FTP or SMTP", ""},
}};

bool has_tls(std::string_view scheme) {
    return std::find(schemes_with_tls.begin(), schemes_with_tls.end(), scheme) != schemes_with_tls.end();
}

// A record of an alert or a handshake, of SSL 3 or later.
bool is_tls_record(std::string_view bytes) {
    return !bytes.empty() && (bytes[0] == '\x15' || bytes[0] == '\x16') && (bytes.size() < 2 || bytes[1] == '\x03');
}

std::string first_line(std::string_view bytes) {
    const std::string_view line = bytes.substr(0, bytes.find_first_of("\r\n"));
    std::string out;
    for (const char c : line.substr(0, longest_line)) out += c >= 0x20 && c < 0x7f ? c : '?';
    return line.size() > longest_line ? out + "..." : out;
}

bool has_line(std::string_view bytes) {
    return bytes.size() > longest_line || bytes.find('\n') != std::string_view::npos;
}

std::string of_http(std::string_view bytes, std::string_view scheme) {
    std::string out = "the server answers in HTTP (\"" + first_line(bytes) + "\"): it is a web server or a proxy";
    if (!scheme.starts_with("mqtt")) return out + ", or another port of the broker";
    return out + ", or a port for WebSockets: use " + (has_tls(scheme) ? "wss" : "ws") + ":// there";
}

}  // namespace

std::string scheme_with_tls(std::string_view scheme) {
    return std::string(scheme) + (has_tls(scheme) ? "" : "s");
}

std::string scheme_without_tls(std::string_view scheme) {
    return std::string(has_tls(scheme) ? scheme.substr(0, scheme.size() - 1) : scheme);
}

std::string if_it_wants_tls(std::string_view scheme) {
    return has_tls(scheme) ? "" : "; if it wants TLS on this port, use " + scheme_with_tls(scheme) + "://";
}

std::string other_protocol(std::string_view bytes, std::string_view scheme) {
    if (is_tls_record(bytes))
        return has_tls(scheme)
                   ? ""
                   : "the server speaks TLS on this port: use " + scheme_with_tls(scheme) + ":// in the broker's URL";
    for (const Greeting& greeting : greetings) {
        if (!bytes.starts_with(greeting.begins) || scheme_without_tls(scheme) == greeting.scheme) continue;
        if (greeting.protocol == "HTTP" && scheme.starts_with("ws")) continue;  // a WebSocket begins with it
        if (greeting.protocol == "HTTP" && !has_line(bytes)) return {};
        if (greeting.protocol == "HTTP") return of_http(bytes, scheme);
        std::string out = "the server speaks " + std::string(greeting.protocol) + " on this port";
        if (!greeting.scheme.empty()) out += ", whose scheme is " + std::string(greeting.scheme) + "://";
        return out;
    }
    return {};
}

bool may_be_other_protocol(std::string_view bytes) {
    return std::any_of(greetings.begin(), greetings.end(), [&](const Greeting& greeting) {
        if (bytes.starts_with(greeting.begins)) return greeting.protocol == "HTTP" && !has_line(bytes);
        return bytes.size() < greeting.begins.size() && greeting.begins.starts_with(bytes);
    });
}

}  // namespace eventbus::broker
