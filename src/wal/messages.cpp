// What it is: messages in the WAL as events: our own, and anybody's.
// Who calls it: the callbacks, and held.cpp.
// Never: needs a transaction, where the database's encoding is UTF-8.
#include <algorithm>

#include "core/wal_message.hpp"
#include "wal/events.hpp"

extern "C" {
#include "mb/pg_wchar.h"
}

namespace eventbus::wal {

std::string_view utf8_of(std::string_view text) {
    if (GetDatabaseEncoding() == PG_UTF8) return text;
    char* converted = pg_server_to_any(pnstrdup(text.data(), text.size()), static_cast<int>(text.size()), PG_UTF8);
    return {converted, strlen(converted)};
}

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

// Somebody's own message: the prefix is the topic, the content the payload.
Event foreign_message(const char* prefix, std::string_view content) {
    Event event;
    event.topic = topic_of_prefix(prefix);
    bool readable = pg_verify_mbstr(GetDatabaseEncoding(), content.data(), static_cast<int>(content.size()), true);
    event.is_bytes = !readable;
    if (!readable) {
        event.payload = content;
        event.content_type = "application/octet-stream";
        return event;
    }
    // What is converted wants the catalog, and so a transaction, which there is not always.
    bool own_transaction = GetDatabaseEncoding() != PG_UTF8 && !IsTransactionState();
    MemoryContext memory = CurrentMemoryContext;
    if (own_transaction) StartTransactionCommand();
    MemoryContextSwitchTo(memory);
    event.topic = utf8_of(event.topic);
    event.payload = utf8_of(content);
    event.content_type =
        compat::is_json(content.data(), static_cast<int>(content.size())) ? "application/json" : "text/plain";
    if (own_transaction) CommitTransactionCommand();
    MemoryContextSwitchTo(memory);
    return event;
}

}  // namespace

void found_message(Source* source, XLogRecPtr lsn, const char* prefix, std::string_view content) {
    MemoryContext before = MemoryContextSwitchTo(source->scratch);
    Found found(source, lsn);
    Event event;
    if (strcmp(prefix, wal_message_prefix) != 0 || !read_wal_message(content, event))
        event = foreign_message(prefix, content);
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
