// What it is: what all ways of publishing share: limits, and the way into the log.
// Who calls it: publish and its kin, capture triggers.
// Never: decides who may publish what.
#pragma once

#include <string_view>

#include "postgres/rows.hpp"
#include "source/log/log.hpp"

namespace eventbus::intake {

// Errors when a payload is larger than eventbus.max_payload.
void check_payload_size(Size bytes);

void check_key_size(Size bytes);

// Errors unless it is one, as it is delivered.
void check_topic(std::string_view topic);

// Errors unless the jsonb is an object within the limits of core/headers.hpp.
void check_headers(Datum headers);

// What a function of the publish family takes: JSON of any type, text or bytes.
enum class Payload { json, text, bytes };

// The arguments of such a function, checked; `function` is its name for errors.
log::NewEvent read_event(FunctionCallInfo fcinfo, const char* function, Payload payload);
const text* json_content_type();

// Appends the event to this database's log and returns its id; warns once a session where nobody will deliver it.
int64 append(log::NewEvent* event);
// The same for one of many events of a statement, whose id nobody asks for.
void append_later(log::NewEvent* event);

}  // namespace eventbus::intake
