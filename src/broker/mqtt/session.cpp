// What it is: what outlives a connection; see session.hpp.
// Who calls it: the MQTT driver.
// Never: holds an event's bytes.
#include "broker/mqtt/session.hpp"

namespace eventbus::broker::mqtt {

namespace {

std::uint64_t fingerprint(std::string_view text, std::uint64_t state) {
    for (const char c : text) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    return state;
}

}  // namespace

std::shared_ptr<Session> session_of(const BrokerSettings& settings) {
    static std::map<std::string, std::shared_ptr<Session>> sessions;
    std::string who = client_id_of(settings) + " " + settings.url.scheme;
    for (const Host& host : settings.url.hosts) who += " " + host.shown();
    auto& session = sessions[who];
    if (!session) session = std::make_shared<Session>();
    return session;
}

std::string client_id_of(const BrokerSettings& settings) {
    if (!settings.options.client_id.empty()) return settings.options.client_id;
    constexpr std::string_view digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    constexpr std::size_t length = 23;
    std::uint64_t who = fingerprint(settings.source, 0xcbf29ce484222325);
    who = fingerprint(settings.name, fingerprint(std::string_view("\0", 1), who));
    std::string id = "pgeventbus";
    for (; id.size() < length; who /= digits.size()) id += digits[who % digits.size()];
    return id;
}

}  // namespace eventbus::broker::mqtt
