// What it is: the words of the AMQP login: who we are, what we can, which limits hold.
// Who calls it: the AMQP driver while it connects; check() of the module.
// Never: does I/O, or puts a password anywhere but into the login itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "broker/amqp/frame.hpp"
#include "broker/amqp/methods.hpp"
#include "core/broker_settings.hpp"

namespace eventbus::broker::amqp {

// What the URL and the options say, the URL's query first. Throws BadInput.
struct ClientSettings {
    explicit ClientSettings(const BrokerSettings& settings);

    std::string vhost;
    std::uint32_t connect_timeout_ms;
    std::uint32_t heartbeat_s;
};

// What holds on a connection.
struct Limits {
    std::size_t frame_max = most_frame_max;
    std::uint16_t channel_max = 65535;
    std::uint16_t heartbeat_s = 0;  // 0: none
};

// Words that stand for an answer that is no AMQP 0-9-1 frame: another protocol, another version, TLS.
// Empty while it looks right.
std::string not_amqp(std::string_view greeting, std::string_view scheme);

// Appends connection.start-ok. Returns why it can't log in; empty when it could.
std::string append_start_ok(FrameWriter& frames, std::string& out, std::string_view mechanisms,
                            const BrokerSettings& settings);

// Our answer to the broker's limits: the lesser of both, where 0 says "no limit".
Limits agree(const Method& tune, std::uint32_t heartbeat_s);
void append_tune_ok_and_open(FrameWriter& frames, std::string& out, const Limits& limits, std::string_view vhost);

}  // namespace eventbus::broker::amqp
