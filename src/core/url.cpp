// What it is: the parser and the redactor of broker URLs; see broker_settings.hpp.
// Who calls it: create_broker, the sender, the drivers' checks.
// Never: quotes a URL in an error, for it may hold a password.
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "core/bad_input.hpp"
#include "core/broker_settings.hpp"

namespace eventbus {

namespace {

constexpr std::string_view separator = "://";
constexpr std::string_view hidden = "***";
constexpr std::size_t longest_url = 64 * 1024;

[[noreturn]] void malformed(std::string detail, const std::string& form = "scheme://user:password@host:port/path") {
    throw BadInput(
        "malformed broker URL", std::move(detail),
        "Write " + form + ", with special characters percent-encoded (\"@\" is %40, \"/\" is %2F, \":\" is %3A).");
}

bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
bool is_control(char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

std::string lowered(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = lower(c);
    return out;
}

int hex_value(char c) {
    if (is_digit(c)) return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

std::string decoded(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        char c = text[i];
        if (c == '%') {
            const int high = i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
            const int low = i + 2 < text.size() ? hex_value(text[i + 2]) : -1;
            if (high < 0 || low < 0) malformed("A percent sign is not followed by two hexadecimal digits.");
            c = static_cast<char>(high * 16 + low);
            i += 2;
        }
        if (is_control(c)) malformed("It contains a control character.");
        out.push_back(c);
    }
    return out;
}

std::uint16_t port_number(std::string_view text) {
    unsigned port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (text.empty() || error != std::errc() || end != text.data() + text.size() || port == 0 || port > 65535)
        malformed("A port is not a number from 1 to 65535.");
    return static_cast<std::uint16_t>(port);
}

Host unix_host(std::string path) {
    if (path.size() >= sizeof(sockaddr_un::sun_path))
        malformed("The path of a unix socket is longer than " + std::to_string(sizeof(sockaddr_un::sun_path) - 1) +
                  " bytes.");
    return Host{std::move(path), 0};
}

// One element of the list of hosts.
Host parse_host(std::string_view text, std::uint16_t default_port) {
    Host host;
    std::string_view port;
    bool has_port = false;
    bool bracketed = false;
    if (text.starts_with('[')) {
        const auto end = text.find(']');
        if (end == std::string_view::npos) malformed("A bracket around an IPv6 address is not closed.");
        host.name = decoded(text.substr(1, end - 1));
        bracketed = true;
        const auto rest = text.substr(end + 1);
        if (!rest.empty() && rest.front() != ':')
            malformed("An IPv6 address in brackets is followed by something else than a port.");
        has_port = !rest.empty();
        if (has_port) port = rest.substr(1);
    } else {
        const auto colon = text.find(':');
        has_port = colon != std::string_view::npos;
        if (has_port) port = text.substr(colon + 1);
        if (port.find(':') != std::string_view::npos)
            malformed("A host has more than one colon; an IPv6 address must stand in brackets.");
        host.name = decoded(text.substr(0, colon));
    }
    if (host.name.empty()) malformed("A host name is empty.");
    if (host.is_unix() && !bracketed) {
        if (has_port) malformed("A unix socket has a port.");
        return unix_host(std::move(host.name));
    }
    const bool plain = std::all_of(host.name.begin(), host.name.end(), [&](char c) {
        return is_letter(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || (bracketed && (c == ':' || c == '%'));
    });
    if (!plain) malformed("A host name contains a character that host names cannot have.");
    host.port = has_port ? port_number(port) : default_port;
    return host;
}

void parse_query(std::string_view text, std::map<std::string, std::string>& query) {
    while (!text.empty()) {
        const auto end = std::min(text.find('&'), text.size());
        const auto item = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        const auto equals = item.find('=');
        if (equals == std::string_view::npos || equals == 0)
            malformed("A parameter after \"?\" is not of the form name=value.");
        if (!query.emplace(decoded(item.substr(0, equals)), decoded(item.substr(equals + 1))).second)
            malformed("A parameter after \"?\" is given twice.");
    }
}

// Of all protocols; what else stands behind a "?" may be anything.
bool is_known_parameter(const std::string& name) {
    static constexpr std::array<std::string_view, 3> known{"connection_timeout", "db", "heartbeat"};
    return std::find(known.begin(), known.end(), name) != known.end();
}

// Whether a "/" follows "scheme://" at once.
bool begins_with_path(std::string_view text) {
    const auto end = text.find(separator);
    return end != std::string_view::npos && text.substr(end + separator.size()).starts_with('/');
}

}  // namespace

std::string Host::shown() const {
    if (is_unix()) return name;
    const bool v6 = name.find(':') != std::string::npos;
    return (v6 ? "[" + name + "]" : name) + ":" + std::to_string(port);
}

std::string url_scheme(std::string_view text) {
    const auto end = text.find(separator);
    const auto scheme = text.substr(0, std::min(end, text.size()));
    const bool valid = end != std::string_view::npos && !scheme.empty() && scheme.size() <= 32 &&
                       is_letter(scheme.front()) && std::all_of(scheme.begin(), scheme.end(), [](char c) {
                           return is_letter(c) || is_digit(c) || c == '+' || c == '-' || c == '.';
                       });
    if (!valid) malformed("It does not begin with a scheme and \"://\".");
    return lowered(scheme);
}

Url parse_url(std::string_view text, std::uint16_t default_port, bool has_host) {
    Url url;
    url.scheme = url_scheme(text);
    if (text.size() > longest_url) malformed("It is longer than 64 kB.");
    if (std::any_of(text.begin(), text.end(), is_control)) malformed("It contains a control character.");
    text.remove_prefix(url.scheme.size() + separator.size());

    // A "/" or "?" in a password would make the rest of it a path or a parameter, and its beginning a port or a host.
    if (const auto end = text.find_first_of("/?"); end != std::string_view::npos && text.find('@', end) != text.npos)
        malformed(
            "It has an \"@\" behind a \"/\" or \"?\": in a user or password both must be percent-encoded (\"/\" "
            "is %2F, \"?\" is %3F), and so must an \"@\" that belongs to a path or parameter.");
    if (const auto mark = text.find('?'); mark != std::string_view::npos) {
        parse_query(text.substr(mark + 1), url.query);
        text = text.substr(0, mark);
    }
    if (const auto slash = text.find('/'); slash != std::string_view::npos) {
        url.has_path = true;
        url.path = decoded(text.substr(slash + 1));
        text = text.substr(0, slash);
    }
    if (!has_host) {
        if (text.empty() && !url.path.empty()) return url;
        malformed("Between \"" + url.scheme + "://\" and the \"/\" that its path begins with stands nothing.",
                  url.scheme + ":///path");
    }
    if (const auto at = text.rfind('@'); at != std::string_view::npos) {
        const auto who = text.substr(0, at);
        const auto colon = who.find(':');
        url.user = decoded(who.substr(0, colon));
        url.has_user = !url.user.empty();
        url.has_password = colon != std::string_view::npos;
        if (url.has_password) url.password = decoded(who.substr(colon + 1));
        text = text.substr(at + 1);
    }
    if (text.empty() && !url.path.empty()) {
        url.hosts.push_back(unix_host("/" + url.path));
        url.path.clear();
        url.has_path = false;
        return url;
    }
    for (;;) {
        const auto end = text.find(',');
        url.hosts.push_back(parse_host(text.substr(0, end), default_port));
        if (end == std::string_view::npos) return url;
        text.remove_prefix(end + 1);
    }
}

std::string redact_url(std::string_view text) {
    std::string scheme;
    try {
        scheme = url_scheme(text) + std::string(separator);
    } catch (const BadInput&) {
        return std::string(hidden);
    }
    try {
        const Url url = parse_url(text, 1, !begins_with_path(text));
        std::string_view rest = text.substr(scheme.size());
        std::string tail;
        if (!std::all_of(url.query.begin(), url.query.end(),
                         [](const auto& item) { return is_known_parameter(item.first); })) {
            rest = rest.substr(0, rest.find('?'));
            tail = "?" + std::string(hidden);
        }
        // More than the parser's idea of the password: one that holds a raw "/" or "@" must not show in part.
        const auto colon = rest.find(':');
        const auto at = rest.rfind('@');
        if (colon == std::string_view::npos || at == std::string_view::npos || colon > at)
            return scheme + std::string(rest) + tail;
        return scheme + std::string(rest.substr(0, colon + 1)) + std::string(hidden) + std::string(rest.substr(at)) +
               tail;
    } catch (const BadInput&) {
        return scheme + std::string(hidden);
    }
}

}  // namespace eventbus
