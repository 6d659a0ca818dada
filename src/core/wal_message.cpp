#include "core/wal_message.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace eventbus {

namespace {

constexpr char version = 1;
constexpr std::uint16_t no_key = 0xFFFF;

// Years that have four digits, in microseconds since 1970.
constexpr std::int64_t first_time = -62135596800000000;
constexpr std::int64_t behind_last_time = 253402300800000000;

// Written and read on one machine, so in its own byte order. The payload is what remains.
struct Head {
    char version;
    bool is_bytes;
    std::uint16_t topic;
    std::uint16_t key;
    std::uint16_t content_type;
    std::uint32_t headers;
    std::int64_t published_at;
};

}  // namespace

std::size_t wal_message_size(const Event& event) {
    return sizeof(Head) + event.topic.size() + (event.key ? event.key->size() : 0) + event.content_type.size() +
           event.headers.size() + event.payload.size();
}

void write_wal_message(const Event& event, char* to) {
    Head head{};
    head.version = version;
    head.is_bytes = event.is_bytes;
    head.topic = static_cast<std::uint16_t>(event.topic.size());
    head.key = event.key ? static_cast<std::uint16_t>(event.key->size()) : no_key;
    head.content_type = static_cast<std::uint16_t>(event.content_type.size());
    head.headers = static_cast<std::uint32_t>(event.headers.size());
    head.published_at = event.published_at;
    std::memcpy(to, &head, sizeof head);
    to += sizeof head;
    const auto put = [&to](std::string_view text) {
        text.copy(to, text.size());
        to += text.size();
    };
    put(event.topic);
    if (event.key) put(*event.key);
    put(event.content_type);
    put(event.headers);
    put(event.payload);
}

bool read_wal_message(std::string_view content, Event& event) {
    Head head{};
    if (content.size() < sizeof head) return false;
    std::memcpy(&head, content.data(), sizeof head);
    unsigned char is_bytes;  // what is neither 0 nor 1 is no bool
    std::memcpy(&is_bytes, content.data() + offsetof(Head, is_bytes), sizeof is_bytes);
    content.remove_prefix(sizeof head);
    const std::size_t key = head.key == no_key ? 0 : head.key;
    if (head.version != version || is_bytes > 1 || head.published_at < first_time ||
        head.published_at >= behind_last_time ||
        content.size() < std::size_t{head.topic} + key + head.content_type + head.headers)
        return false;
    const auto take = [&content](std::size_t size) {
        const auto text = content.substr(0, size);
        content.remove_prefix(size);
        return text;
    };
    event.is_bytes = head.is_bytes;
    event.published_at = head.published_at;
    event.topic = take(head.topic);
    event.key.reset();
    if (head.key != no_key) event.key = take(key);
    event.content_type = take(head.content_type);
    event.headers = take(head.headers);
    event.payload = content;
    return true;
}

}  // namespace eventbus
