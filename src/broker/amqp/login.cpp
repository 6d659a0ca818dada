// What it is: the words of the AMQP login; see login.hpp.
// Who calls it: the AMQP driver while it connects; check() of the module.
// Never: does I/O, or puts a password anywhere but into the login itself.
#include "broker/amqp/login.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "broker/driver.hpp"
#include "broker/stream/other_protocols.hpp"
#include "core/bad_input.hpp"

namespace eventbus::broker::amqp {

namespace {

amqp_table_entry_t text_entry(std::string_view name, std::string_view text) {
    amqp_table_entry_t entry{};
    entry.key = to_bytes(name);
    entry.value.kind = AMQP_FIELD_KIND_UTF8;
    entry.value.value.bytes = to_bytes(text);
    return entry;
}

amqp_table_entry_t yes(std::string_view name) {
    amqp_table_entry_t entry{};
    entry.key = to_bytes(name);
    entry.value.kind = AMQP_FIELD_KIND_BOOLEAN;
    entry.value.value.boolean = 1;
    return entry;
}

template <std::size_t size>
amqp_table_t table_of(std::array<amqp_table_entry_t, size>& entries) {
    return {static_cast<int>(size), entries.data()};
}

bool offers(std::string_view mechanisms, std::string_view wanted) {
    while (!mechanisms.empty()) {
        const std::size_t space = std::min(mechanisms.find(' '), mechanisms.size());
        if (mechanisms.substr(0, space) == wanted) return true;
        mechanisms.remove_prefix(std::min(space + 1, mechanisms.size()));
    }
    return false;
}

std::uint32_t query_number(const std::string& name, const std::string& text, std::uint32_t most) {
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size() || number > most)
        throw BadInput("URL parameter \"" + name + "\" is not a number from 0 to " + std::to_string(most));
    return number;
}

}  // namespace

ClientSettings::ClientSettings(const BrokerSettings& settings)
    // RabbitMQ's URI specification has "amqp://host/" name the virtual host "", which nobody has: we take "/".
    : vhost(settings.url.path.empty() ? "/" : settings.url.path),
      connect_timeout_ms(settings.options.connect_timeout_ms),
      heartbeat_s(settings.options.heartbeat_s) {
    if (vhost.size() > short_string_max) throw BadInput("virtual host is too long", "AMQP takes at most 255 bytes.");
    for (const auto& [name, value] : settings.url.query) {
        if (name == "heartbeat")
            heartbeat_s = query_number(name, value, std::numeric_limits<std::uint16_t>::max());
        else if (name == "connection_timeout")
            connect_timeout_ms = query_number(name, value, 3'600'000);
        else
            throw BadInput("unknown URL parameter",
                           "What follows a \"?\" is not shown: it may belong to a password, where it is %3F.",
                           "An AMQP URL may have: heartbeat (seconds), connection_timeout (milliseconds).");
    }
    connect_timeout_ms = settings.login_ms(connect_timeout_ms);
    if (connect_timeout_ms == 0) throw BadInput("connection timeout must be more than 0");
    heartbeat_s = std::min<std::uint32_t>(heartbeat_s, std::numeric_limits<std::uint16_t>::max());
}

std::string not_amqp(std::string_view greeting, std::string_view scheme) {
    constexpr std::string_view mark = "AMQP";
    if (greeting.empty()) return {};
    if (greeting.front() == AMQP_FRAME_METHOD) return {};
    if (mark.starts_with(greeting.substr(0, mark.size()))) {
        if (greeting.size() < protocol_header.size()) return {};
        const auto digit = [&](std::size_t at) { return std::to_string(static_cast<unsigned char>(greeting[at])); };
        return "the broker does not speak AMQP 0-9-1: it offers protocol header AMQP " + digit(4) + "." + digit(5) +
               "." + digit(6) + "." + digit(7);
    }
    if (std::string known = other_protocol(greeting, scheme); !known.empty()) return known;
    if (may_be_other_protocol(greeting)) return {};
    std::string shown = printable(greeting.substr(0, std::min<std::size_t>(greeting.find_first_of("\r\n"), 40)));
    std::replace_if(
        shown.begin(), shown.end(), [](unsigned char byte) { return byte >= 0x80; }, '?');
    return "this is not an AMQP broker: it answered \"" + shown + "\"";
}

std::string append_start_ok(FrameWriter& frames, std::string& out, std::string_view mechanisms,
                            const BrokerSettings& settings) {
    const bool has_login = settings.url.has_user || !settings.password.empty();
    const bool external = !has_login && !settings.options.cert_file.empty() && offers(mechanisms, "EXTERNAL");
    if (!external && !offers(mechanisms, "PLAIN"))
        return "the broker offers no way to log in that we know: it offers \"" + printable(mechanisms) +
               "\", we know PLAIN, and EXTERNAL with a client certificate and no user";

    std::string response;
    if (!external) {
        response.push_back('\0');
        response += settings.url.has_user ? settings.url.user : "guest";
        response.push_back('\0');
        response += has_login ? settings.password : "guest";
    }
    std::array capabilities{yes("publisher_confirms"), yes("basic.nack"), yes("connection.blocked"),
                            yes("authentication_failure_close"), yes("consumer_cancel_notify")};
    amqp_table_entry_t capabilities_entry{};
    capabilities_entry.key = to_bytes("capabilities");
    capabilities_entry.value.kind = AMQP_FIELD_KIND_TABLE;
    capabilities_entry.value.value.table = table_of(capabilities);
    const std::string name = "pg_eventbus " + settings.name + (settings.look_ms > 0 ? " (test)" : "");
    const std::string platform = std::string("C++, rabbitmq-c ") + amqp_version();
    std::array properties{text_entry("product", "pg_eventbus"), text_entry("version", EVENTBUS_VERSION),
                          text_entry("platform", platform), text_entry("connection_name", name), capabilities_entry};
    const amqp_connection_start_ok_t start_ok{.client_properties = table_of(properties),
                                              .mechanism = to_bytes(external ? "EXTERNAL" : "PLAIN"),
                                              .response = to_bytes(response),
                                              .locale = to_bytes("en_US")};
    if (!frames.method(out, 0, AMQP_CONNECTION_START_OK_METHOD, &start_ok)) return "user and password are too long";
    return {};
}

Limits agree(const Method& tune, std::uint32_t heartbeat_s) {
    const auto lesser = [](std::size_t theirs, std::size_t ours) {
        return theirs == 0 ? ours : std::min(theirs, ours);
    };
    Limits limits;
    limits.frame_max = std::max(lesser(tune.frame_max, most_frame_max), least_frame_max);
    limits.channel_max = static_cast<std::uint16_t>(lesser(tune.channel_max, limits.channel_max));
    limits.heartbeat_s = static_cast<std::uint16_t>(lesser(tune.heartbeat_s, heartbeat_s));  // ours 0: none at all
    return limits;
}

void append_tune_ok_and_open(FrameWriter& frames, std::string& out, const Limits& limits, std::string_view vhost) {
    const amqp_connection_tune_ok_t tune_ok{.channel_max = limits.channel_max,
                                            .frame_max = static_cast<std::uint32_t>(limits.frame_max),
                                            .heartbeat = limits.heartbeat_s};
    frames.method(out, 0, AMQP_CONNECTION_TUNE_OK_METHOD, &tune_ok);
    const amqp_connection_open_t open{.virtual_host = to_bytes(vhost), .capabilities = {}, .insist = 0};
    frames.method(out, 0, AMQP_CONNECTION_OPEN_METHOD, &open);
}

}  // namespace eventbus::broker::amqp
