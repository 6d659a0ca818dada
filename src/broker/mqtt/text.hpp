// What it is: which texts MQTT takes: what a broker would end the connection for is never sent.
// Who calls it: the MQTT messages, once a text; create_broker and create_route, for what they are told.
// Never: changes what a publisher wrote.
//
// MQTT 5.0, 1.5.4 (3.1.1: 1.5.3): no text holds U+0000 or a surrogate, and none should hold a control character or what
// Unicode has reserved as no character; a broker that is sent one may end the connection, and mosquitto does. Binary
// data (payload, correlation data, password) is none of it.
#pragma once

#include <string>
#include <string_view>

namespace eventbus::broker::mqtt {

// What is wrong with it: "has the character U+000A, which no MQTT text may have", say; empty: nothing.
std::string flaw_in_text(std::string_view text);

// The same of a part of a topic's name, and of a whole one.
std::string flaw_in_part_of_name(std::string_view part);
std::string flaw_in_name(std::string_view name);

// With a question mark for what no text may have, and no longer than one may be.
std::string with_marks(std::string_view text);

}  // namespace eventbus::broker::mqtt
