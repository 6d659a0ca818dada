// What it is: an event of any content, as drivers are handed it.
// Who calls it: the fuzzers of what writes messages.
// Never: keeps its texts anywhere but in memory of exactly their size.
#pragma once

#include "broker/driver.hpp"
#include "input.hpp"

namespace eventbus::fuzz {

struct AnyMessage {
    // flags: 4 with a key, 8 bytes instead of text.
    AnyMessage(Input& input, unsigned flags, const broker::Addressing& addressing)
        : name(input.piece()),
          key(input.piece()),
          type(input.piece()),
          payload(input.piece()),
          headers(input.rest()),
          outgoing{.ticket = 1,
                   .lane = 1,
                   .event = &event,
                   .addressing = &addressing,
                   .name = name.view(),
                   .routing_key = key.view()} {
        event.id = EventId::of_log(17);
        event.topic = "shop.order";
        if ((flags & 4) != 0) event.key = key.view();
        event.content_type = type.view();
        event.payload = payload.view();
        event.headers = headers.view();
        event.is_bytes = (flags & 8) != 0;
    }
    AnyMessage(const AnyMessage&) = delete;
    AnyMessage& operator=(const AnyMessage&) = delete;

    const Exact name;
    const Exact key;
    const Exact type;
    const Exact payload;
    const Exact headers;
    Event event;
    const broker::Outgoing outgoing;
};

}  // namespace eventbus::fuzz
