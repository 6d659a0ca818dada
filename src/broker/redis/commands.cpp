// What it is: Redis commands, written into an outbox as RESP; see commands.hpp.
// Who calls it: the Redis driver, once a ticket.
// Never: allocates besides the outbox's own growth, or looks at replies.
#include "broker/redis/commands.hpp"

#include <array>
#include <charconv>
#include <cstring>

#include "core/time_text.hpp"

namespace eventbus::broker::redis {

namespace {

constexpr std::size_t longest_number = 20;
constexpr std::size_t around_a_word = 1 + longest_number + 2 + 2;  // $ length CRLF word CRLF
constexpr std::size_t fixed_words = 512;                           // everything of an XADD that no event brings along

// Writes behind the outbox's end, without asking for room at every word.
class Writer {
 public:
    Writer(std::string& outbox, std::size_t room) : outbox_(outbox) {
        const std::size_t begin = outbox.size();
        outbox.resize(begin + room);
        at_ = outbox.data() + begin;
    }
    ~Writer() { outbox_.resize(static_cast<std::size_t>(at_ - outbox_.data())); }
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    // Words whose RESP is known: "$2\r\nid\r\n"
    void raw(std::string_view resp) {
        std::memcpy(at_, resp.data(), resp.size());
        at_ += resp.size();
    }
    void count(char mark, std::size_t number) {
        *at_++ = mark;
        at_ = std::to_chars(at_, at_ + longest_number, number).ptr;
        raw("\r\n");
    }
    void word(std::string_view text) {
        count('$', text.size());
        raw(text);
        raw("\r\n");
    }
    void number(std::int64_t value) {
        std::array<char, longest_number> digits;
        const char* end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
        word({digits.data(), static_cast<std::size_t>(end - digits.data())});
    }

 private:
    std::string& outbox_;
    char* at_;
};

}  // namespace

std::size_t command_room(const Outgoing& outgoing, std::string_view source) {
    const Event& event = *outgoing.event;
    return outgoing.name.size() + event.topic.size() + (event.key ? event.key->size() : 0) + event.payload.size() +
           event.content_type.size() + event.headers.size() + source.size() + fixed_words;
}

void write_publish(std::string& outbox, const Outgoing& outgoing) {
    Writer out(outbox, outgoing.name.size() + outgoing.event->payload.size() + fixed_words);
    out.raw("*3\r\n$7\r\nPUBLISH\r\n");
    out.word(outgoing.name);
    out.word(outgoing.event->payload);
}

void write_push(std::string& outbox, const Outgoing& outgoing) {
    Writer out(outbox, outgoing.name.size() + outgoing.event->payload.size() + fixed_words);
    out.raw("*3\r\n$5\r\nRPUSH\r\n");
    out.word(outgoing.name);
    out.word(outgoing.event->payload);
}

void write_stream_add(std::string& outbox, const Outgoing& outgoing, std::string_view source) {
    const Event& event = *outgoing.event;
    const std::int64_t maxlen = route_of(*outgoing.addressing).maxlen;
    std::array<char, rfc3339_length> time;
    EventIdText id;

    Writer out(outbox, command_room(outgoing, source));
    out.count('*', 15 + (maxlen > 0 ? 3 : 0) + (event.key ? 2 : 0) + (event.headers.empty() ? 0 : 2));
    out.raw("$4\r\nXADD\r\n");
    out.word(outgoing.name);
    if (maxlen > 0) {
        out.raw("$6\r\nMAXLEN\r\n$1\r\n~\r\n");
        out.number(maxlen);
    }
    out.raw("$1\r\n*\r\n$2\r\nid\r\n");
    out.word(to_text(event.id, id));
    out.raw("$5\r\ntopic\r\n");
    out.word(event.topic);
    if (event.key) {
        out.raw("$3\r\nkey\r\n");
        out.word(*event.key);
    }
    out.raw("$7\r\npayload\r\n");
    out.word(event.payload);
    out.raw("$12\r\ncontent_type\r\n");
    out.word(event.content_type);
    out.raw("$4\r\ntime\r\n");
    out.word(rfc3339(event.published_at, time));
    out.raw("$6\r\nsource\r\n");
    out.word(source);
    if (!event.headers.empty()) {
        out.raw("$7\r\nheaders\r\n");
        out.word(event.headers);
    }
}

void write_command(std::string& outbox, std::initializer_list<std::string_view> words) {
    std::size_t room = around_a_word;
    for (const auto word : words) room += word.size() + around_a_word;
    Writer out(outbox, room);
    out.count('*', words.size());
    for (const auto word : words) out.word(word);
}

}  // namespace eventbus::broker::redis
