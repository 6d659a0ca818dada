// What it is: messages in the WAL as events: our own, and anybody's.
// Who calls it: the callbacks, and message_transactions.cpp.
// Never: looks at more than the topic of what nobody wants; needs a transaction, where the database is one of UTF-8.
#include <algorithm>

#include "core/headers.hpp"
#include "core/json.hpp"
#include "core/topic.hpp"
#include "core/utf8.hpp"
#include "core/wal_message.hpp"
#include "postgres/encoding.hpp"
#include "postgres/rows.hpp"
#include "settings/settings.hpp"
#include "source/wal/events.hpp"

namespace eventbus::wal {

namespace {

std::string_view cut_utf8(std::string_view text, Size most) {
    if (text.size() <= most) return text;
    auto length = static_cast<int>(text.size());
    return text.substr(0,
                       static_cast<Size>(pg_encoding_mbcliplen(PG_UTF8, text.data(), length, static_cast<int>(most))));
}

// A space, and what a topic may not hold, becomes an underscore, what UTF-8 does not have a question mark.
std::string_view topic_of_prefix(std::string_view prefix) {
    constexpr Size enough = 4 * longest_topic;  // no character becomes as much shorter
    std::string_view text = cut_utf8(to_utf8_or_marks(prefix.substr(0, enough)), longest_topic);
    if (text.empty()) return "_";
    StringInfoData topic;
    initStringInfo(&topic);
    for (Size at = 0; at < text.size(); ++at) {
        const char c = text[at];
        const bool control = is_control_at(text, at);
        const bool empty_word =
            c == '.' && (topic.len == 0 || topic.data[topic.len - 1] == '.' || at + 1 == text.size());
        const bool refused = control || empty_word || strchr(" *#+", c) != nullptr;
        appendStringInfoChar(&topic, refused ? '_' : c);
        if (control && IS_HIGHBIT_SET(c)) ++at;
    }
    return {topic.data, static_cast<Size>(topic.len)};
}

// Where even a conversion fails.
const char* with_marks(const char* text) {
    char* shown = pstrdup(text);
    for (char* c = shown; *c != '\0'; ++c)
        if (IS_HIGHBIT_SET(*c)) *c = '?';
    return shown;
}

// Whether it is text that can be converted, in one piece of memory.
bool is_text(std::string_view content) {
    return pg_verify_mbstr(GetDatabaseEncoding(), content.data(), static_cast<int>(content.size()), true) &&
           (database_is_utf8() || content.size() < MaxAllocSize / MAX_CONVERSION_GROWTH) &&
           convertible(content) == content.size();
}

// The payload of somebody's own message: bytes where it is no text of the database, or none that UTF-8 has.
void read_foreign_message(std::string_view content, Event* event) {
    event->is_bytes = !is_text(content);
    if (event->is_bytes) {
        event->payload = content;
        event->content_type = "application/octet-stream";
        return;
    }
    event->payload = to_utf8(content);
    event->content_type = is_json(event->payload) ? "application/json" : "text/plain";
}

// Whoever wants it gets a dead letter that names it: such a message is not held in memory, nor sent.
bool is_too_large(std::string_view payload, Event* event) {
    const auto most = static_cast<Size>(settings::max_payload);
    if (payload.size() <= most) return false;
    event->payload = {};
    event->is_bytes = true;
    event->content_type = "application/octet-stream";
    event->error = to_utf8_or_marks(
        psprintf("a message of %zu bytes is larger than eventbus.max_payload (%zu bytes)", payload.size(), most));
    return true;
}

bool is_utf8(std::string_view text) {
    return pg_verify_mbstr(PG_UTF8, text.data(), static_cast<int>(text.size()), true);
}

// What the database could not keep is not what publish_wal has written.
bool is_own_name(std::string_view name, Size longest) {
    bool whole = name.size() <= longest && is_utf8(name);
    if (whole && !database_is_utf8()) (void)from_utf8(name, &whole);
    return whole;
}

bool is_content_type(std::string_view type) {
    constexpr Size longest = 255;
    return !type.empty() && type.size() <= longest &&
           std::all_of(type.begin(), type.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

// Whether all but the topic is what publish_wal writes.
bool is_whole(const Event& event) {
    return (!event.key || is_own_name(*event.key, longest_key)) && is_content_type(event.content_type) &&
           (event.headers.empty() || (is_utf8(event.headers) && are_headers(event.headers))) &&
           (event.is_bytes || is_utf8(event.payload));
}

// Who wants it, by number; nullptr: nobody.
const bool* takers_of(const Source* source, std::string_view topic) {
    bool* wanted = nullptr;
    const char* name = nullptr;
    ListCell* cell;
    foreach (cell, source->shapes) {
        const auto* shape = static_cast<Shape*>(lfirst(cell));
        // Patterns are in the database's encoding.
        if (name == nullptr) name = from_utf8(topic);
        if (!decoder::wants_message(shape->decoder.options, name)) continue;
        for (int i = 0; i < shape->taker_count; ++i) {
            if (!wants(source, shape->takers[i], topic)) continue;
            if (wanted == nullptr)
                wanted = static_cast<bool*>(palloc0(sizeof(bool) * static_cast<Size>(list_length(source->takers))));
            wanted[shape->takers[i]] = true;
        }
    }
    return wanted;
}

struct Message {
    Source* source;
    const char* prefix;
    std::string_view content;
    Event event;
    const bool* takers;
};

void read(void* argument) {
    auto* message = static_cast<Message*>(argument);
    Event own;
    if (strcmp(message->prefix, wal_message_prefix) == 0 && read_wal_message(message->content, own) &&
        is_topic(own.topic) && is_own_name(own.topic, longest_topic)) {
        message->event.topic = own.topic;
        message->takers = takers_of(message->source, own.topic);
        // That nobody wants it is no reason to look whether it is what it says, unless somebody wants all that is not.
        if (message->takers == nullptr && takers_of(message->source, wal_message_prefix) == nullptr) return;
        if (is_whole(own)) {
            message->event = own;
            (void)is_too_large(own.payload, &message->event);
            return;
        }
    }
    message->event.topic = topic_of_prefix(message->prefix);
    message->takers = takers_of(message->source, message->event.topic);
    if (message->takers == nullptr || is_too_large(message->content, &message->event)) return;
    read_foreign_message(message->content, &message->event);
}

}  // namespace

void found_message(Source* source, XLogRecPtr lsn, const char* prefix, std::string_view content) {
    MemoryContext before = MemoryContextSwitchTo(source->scratch);
    Found found(source, lsn);
    source->change = found.change();
    // What is converted wants the catalog, and so a transaction, which there is not always.
    bool own_transaction = (!database_is_utf8() || messages_want_care(source)) && !IsTransactionState();
    if (own_transaction) StartTransactionCommand();
    MemoryContextSwitchTo(source->scratch);
    Message message = {source, prefix, content, {}, nullptr};
    if (const char* words = make_message(source, read, &message)) {
        if (message.takers == nullptr) {
            message.event.topic = topic_of_prefix(with_marks(prefix));
            message.takers = takers_of(source, message.event.topic);
        }
        message.event.is_bytes = true;
        message.event.content_type = "application/octet-stream";
        message.event.error = to_utf8_or_marks(psprintf("a message cannot be decoded: %s", words));
    }
    if (own_transaction) CommitTransactionCommand();
    MemoryContextSwitchTo(source->scratch);
    for (int i = 0; message.takers != nullptr && i < list_length(source->takers); ++i)
        if (message.takers[i]) found.give(i, &message.event);
    found.done();
    MemoryContextSwitchTo(before);
    MemoryContextReset(source->scratch);
}

}  // namespace eventbus::wal
