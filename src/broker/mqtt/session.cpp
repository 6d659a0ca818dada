// What it is: what outlives a connection; see session.hpp.
// Who calls it: the MQTT driver.
// Never: holds an event's bytes.
#include "broker/mqtt/session.hpp"

#include <algorithm>
#include <random>

namespace eventbus::broker::mqtt {

namespace {

constexpr std::string_view digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

void draw(std::string& id, std::size_t length) {
    std::random_device lot;
    std::uniform_int_distribution<std::size_t> any(0, digits.size() - 1);
    while (id.size() < length) id += digits[any(lot)];
}

std::uint64_t fingerprint(std::string_view text, std::uint64_t state) {
    for (const char c : text) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    return state;
}

}  // namespace

std::shared_ptr<Session> session_of(const BrokerSettings& settings) {
    static std::map<std::string, std::shared_ptr<Session>> sessions;
    const std::string& given = options_of(settings).client_id;
    std::string who = given.empty() ? settings.source + '\0' + settings.name : given;
    who += (given.empty() ? " - " : " + ") + settings.url.scheme;
    for (const Host& host : settings.url.hosts) who += " " + host.shown();
    auto& session = sessions[who];
    if (!session) {
        session = std::make_shared<Session>();
        session->exclusive = given.empty();
        session->client_id = given.empty() ? new_client_id(settings) : given;
    }
    return session;
}

std::shared_ptr<Session> session_to_look(const BrokerSettings& settings) {
    constexpr std::size_t longest_given = 60'000;
    constexpr std::size_t drawn = 6;
    auto session = std::make_shared<Session>();
    const std::string& given = options_of(settings).client_id;
    if (given.empty()) {
        session->client_id = new_client_id(settings);
        return session;
    }
    session->client_id = given.substr(0, longest_given) + "-test-";
    draw(session->client_id, session->client_id.size() + drawn);
    return session;
}

Session::StreamHistory* Session::find(std::uint16_t id) {
    const auto found = std::find_if(past.begin(), past.end(), [&](const auto& entry) {
        return entry.second.id == id && entry.second.stage != Stage::complete;
    });
    return found == past.end() ? nullptr : &found->second;
}

void Session::forget(std::uint16_t id) {
    std::erase_if(past,
                  [&](const auto& entry) { return entry.second.id == id && entry.second.stage != Stage::complete; });
}

std::string new_client_id(const BrokerSettings& settings) {
    constexpr std::size_t told = 14;
    constexpr std::size_t length = 23;
    std::uint64_t who = fingerprint(settings.source, 0xcbf29ce484222325);
    who = fingerprint(settings.name, fingerprint(std::string_view("\0", 1), who));
    std::string id = "pgeventbus";
    for (; id.size() < told; who /= digits.size()) id += digits[who % digits.size()];
    draw(id, length);
    return id;
}

}  // namespace eventbus::broker::mqtt
