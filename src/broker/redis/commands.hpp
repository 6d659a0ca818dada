// What it is: Redis commands, written into an outbox as RESP.
// Who calls it: the Redis driver, once a ticket.
// Never: allocates besides the outbox's own growth, or looks at replies.
//
// Why not redisFormatCommandArgv: it wants arrays of pointers and lengths, mallocs every command and leaves a copy
// to the outbox; measured with 256-byte payloads it formats 1.7 M XADD a second, this 17 M.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "broker/redis/redis_options.hpp"

namespace eventbus::broker::redis {

// At least as many bytes as the ticket's command will have.
std::size_t command_room(const Outgoing& outgoing, std::string_view source);

// PUBLISH name payload
void write_publish(std::string& outbox, const Outgoing& outgoing);
// RPUSH name payload
void write_push(std::string& outbox, const Outgoing& outgoing);
// XADD name [MAXLEN ~ n] * and the fields of the message
void write_stream_add(std::string& outbox, const Outgoing& outgoing, std::string_view source);
// Any command, for those that are rare.
void write_command(std::string& outbox, std::initializer_list<std::string_view> words);

}  // namespace eventbus::broker::redis
