// What it is: what events of changed rows have in common: stored as one byte, and put back when they are read.
// Who calls it: intake, which writes the bytes; the reader; the view eventbus.event, by eventbus.captured_payload.
// Never: is asked about text that somebody else wrote: there such bytes mean themselves.
#pragma once

#include <string_view>

#include "postgres/type_json.hpp"

extern "C" {
#include "utils/jsonb.h"
}

namespace eventbus::log {

// Control characters, which JSON has none of, stand for parts of Debezium's envelope.
enum class PayloadToken : char {
    no_before = 1,  // {"before":null,"after":
    source,         // ,"source":{…,"schema":
    table,          // ,"table":
    transaction,    // ,"txId":…,"ts_ms":…,"lsn":null,"snapshot":false},"op":"
    time,           // ","ts_ms":…
    subject,        // the last four with what stands between them: schema, table and operation are the topic's words
};

// What phrases tell of, beside this database.
struct Context {
    std::string_view topic;
    uint64 xid;
    TimestampTz published_at;
};

inline void put(StringInfo out, PayloadToken phrase) {
    eventbus::put(out, static_cast<char>(phrase));
}

// Appends the whole text of a payload that was stored with phrases, whatever text that is: both in the database's
// encoding.
void append_whole(StringInfo out, std::string_view stored, const Context& context);

// Appends the headers of an event that was captured, as a jsonb prints them: `extra` (or nullptr), pg-txid and pg-user.
void append_headers(StringInfo out, const Jsonb* extra, uint64 xid, std::string_view user);

}  // namespace eventbus::log
