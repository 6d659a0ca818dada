// What it is: whether an event's texts can go over into UTF-8, which brokers get: decided where the event is made.
// Who calls it: publish and its kin, capture triggers, the DDL trigger.
// Never: does anything in a database whose encoding is UTF8, or changes a text.
#pragma once

#include "postgres/encoding.hpp"
#include "source/log/log.hpp"

namespace eventbus::intake {

inline constexpr const char* leave_it_out = "Leave the character out, or replace it.";

// Errors where key, headers or payload have a character that UTF-8 does not have, or would be too long in it.
void check_characters_by_hand(const log::NewEvent& event);
inline void check_characters(const log::NewEvent& event) {
    if (!database_is_utf8()) check_characters_by_hand(event);
}

}  // namespace eventbus::intake
