// What it is: messages in the WAL as events: our own, and anybody's.
// Who calls it: the callbacks, and held.cpp.
// Never: needs a transaction, where the database's encoding is UTF-8.
#include <algorithm>

#include "core/wal_message.hpp"
#include "postgres/encoding.hpp"
#include "wal/events.hpp"

namespace eventbus::wal {

namespace {

// What a topic may not hold becomes an underscore.
std::string_view topic_of_prefix(const char* prefix) {
    constexpr Size longest = 255;
    Size length = std::min(strlen(prefix), longest);
    char* topic = pnstrdup(prefix, length);
    for (char* c = topic; *c != '\0'; ++c) {
        bool empty_word = *c == '.' && (c == topic || c[-1] == '.' || c[1] == '\0');
        bool refused = static_cast<unsigned char>(*c) <= 0x20 || *c == 0x7f || strchr("*#+", *c) != nullptr;
        if (empty_word || refused) *c = '_';
    }
    return length > 0 ? std::string_view(topic, strlen(topic)) : "_";
}

// Somebody's own message: the prefix is the topic, the content the payload: bytes where it is no text of the database,
// or none that UTF-8 has.
Event foreign_message(const char* prefix, std::string_view content) {
    Event event;
    event.topic = to_utf8_or_marks(topic_of_prefix(prefix));
    auto length = static_cast<int>(content.size());
    event.is_bytes =
        !pg_verify_mbstr(GetDatabaseEncoding(), content.data(), length, true) || convertible(content) != content.size();
    if (event.is_bytes) {
        event.payload = content;
        event.content_type = "application/octet-stream";
        return event;
    }
    event.payload = to_utf8(content);
    event.content_type = compat::is_json(content.data(), length) ? "application/json" : "text/plain";
    return event;
}

bool is_utf8(std::string_view text) {
    return pg_verify_mbstr(PG_UTF8, text.data(), static_cast<int>(text.size()), true);
}

// A name that the database could not keep is not what publish_wal has written.
bool is_own_name(std::string_view name) {
    bool whole = is_utf8(name);
    if (whole && !database_is_utf8()) (void)from_utf8(name, &whole);
    return whole;
}

// What publish_wal has written is valid; but anybody may use its prefix.
bool read_own_message(std::string_view content, Event& event) {
    if (!read_wal_message(content, event)) return false;
    return !event.topic.empty() && is_own_name(event.topic) && (!event.key || is_own_name(*event.key)) &&
           is_utf8(event.content_type) && is_utf8(event.headers) && (event.is_bytes || is_utf8(event.payload));
}

Event read_message(const char* prefix, std::string_view content) {
    Event event;
    if (strcmp(prefix, wal_message_prefix) == 0 && read_own_message(content, event)) return event;
    return foreign_message(prefix, content);
}

}  // namespace

void found_message(Source* source, XLogRecPtr lsn, const char* prefix, std::string_view content) {
    MemoryContext before = MemoryContextSwitchTo(source->scratch);
    Found found(source, lsn);
    // What is converted wants the catalog, and so a transaction, which there is not always.
    bool own_transaction = !database_is_utf8() && !IsTransactionState();
    if (own_transaction) StartTransactionCommand();
    MemoryContextSwitchTo(source->scratch);
    Event event = read_message(prefix, content);
    if (own_transaction) CommitTransactionCommand();
    MemoryContextSwitchTo(source->scratch);
    const char* topic = pnstrdup(event.topic.data(), event.topic.size());
    ListCell* cell;
    foreach (cell, source->shapes) {
        auto* shape = static_cast<Shape*>(lfirst(cell));
        if (!decoder::wants_message(shape->decoder.options, topic)) continue;
        for (int i = 0; i < shape->taker_count; ++i)
            if (wants(source, shape->takers[i], event.topic)) found.give(shape->takers[i], &event);
    }
    found.done();
    MemoryContextSwitchTo(before);
    MemoryContextReset(source->scratch);
}

}  // namespace eventbus::wal
