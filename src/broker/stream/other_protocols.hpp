// What it is: whom we may be speaking to instead of the broker, by the first bytes that came, and what to write instead.
// Who calls it: the drivers and the stream, where the first answer is none of the protocol's.
// Never: more than a line's end of words, whatever came; or certain of what was only guessed.
#pragma once

#include <string>
#include <string_view>

#include "core/broker_settings.hpp"

namespace eventbus::broker {

// What speaks like this, in words to continue with after what went wrong: "the server speaks TLS on this port: use
// amqps:// in the broker's URL". Empty: nobody that we know, or not yet. `scheme`: the URL's.
std::string other_protocol(std::string_view bytes, std::string_view scheme);

// Whether so few bytes may yet become those of somebody whom other_protocol() names.
bool may_be_other_protocol(std::string_view bytes);

// "amqps" of "amqp", and the other way round.
std::string scheme_with_tls(std::string_view scheme);
std::string scheme_without_tls(std::string_view scheme);

// Behind an end that had no words: "; if it wants TLS on this port, use amqps://". Empty where TLS is spoken.
std::string if_it_wants_tls(std::string_view scheme);

}  // namespace eventbus::broker
