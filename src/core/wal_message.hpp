// What it is: an event as the content of a logical message in the WAL: how publish_wal writes it, and how it is read.
// Who calls it: intake, when it is published; wal, when it is decoded.
// Never: owns memory; what is read are views of the content.
#pragma once

#include <cstddef>
#include <string_view>

#include "core/event.hpp"

namespace eventbus {

// The prefix that says so. Other messages are events, too: their prefix is the topic, their content the payload.
inline constexpr const char* wal_message_prefix = "pg_eventbus";

// Everything but ids. Texts are UTF-8.
std::size_t wal_message_size(const Event& event);
void write_wal_message(const Event& event, char* to);
// False where the content is none of ours: anybody may use the prefix. That texts are UTF-8, and neither too long nor
// anything but what they should be (a topic, a JSON object), is not looked at.
bool read_wal_message(std::string_view content, Event& event);

}  // namespace eventbus
