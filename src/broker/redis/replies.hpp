// What it is: Redis replies, parsed by hiredis, and what an error reply means for its event.
// Who calls it: the Redis driver, with the bytes that came.
// Never: keeps more of a reply than the driver asks about.
#pragma once

#include <hiredis/read.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/event_id.hpp"
#include "core/settlement.hpp"

namespace eventbus::broker::redis {

// What tells one event from all others of its source and id.
struct EntryMark {
    std::int64_t published_at = 0;
    std::size_t payload = 0;  // payload_mark()
};

inline std::size_t payload_mark(std::string_view payload) {
    return std::hash<std::string_view>()(payload);
}

// An entry of a stream, as XREVRANGE tells it.
struct StreamEntry {
    std::int64_t ms = 0;  // the entry's own id: ms-sequence
    std::uint64_t sequence = 0;
    bool ours = false;  // it has our source
    EventId id;
    EntryMark mark;
    std::size_t bytes = 0;
};

struct Reply {
    enum class Kind : std::uint8_t { status, integer, string, error, entries, other };
    Kind kind = Kind::other;
    std::int64_t number = 0;  // of an integer; of TIME's answer the microseconds since 1970, else of an array 0
    std::string words;        // of an error, status or string; of HELLO's answer the role
    std::vector<StreamEntry> entries;  // of an array
};

class ReplyReader {
 public:
    // Entries of streams are ours when they have this source.
    explicit ReplyReader(std::string source);

    // Replies to messages are short: whoever continues without end is not Redis. What is read back from streams may
    // be longer.
    void expect_long(bool expected) { longest_ = expected ? 256 * 1024 * 1024 : 1024 * 1024; }

    // Hands every complete reply to take(const Reply&). False: this is not Redis protocol.
    template <class Take>
    bool read(std::string_view bytes, Take&& take) {
        while (!bytes.empty()) {
            // hiredis moves the rest of its buffer down after every kilobyte of replies: keep the rest small.
            constexpr std::size_t slice = 16 * 1024;
            const std::size_t length = std::min(bytes.size(), slice);
            if (redisReaderFeed(reader_.get(), bytes.data(), length) != 0) return false;
            bytes.remove_prefix(length);
            unfinished_ += length;
            for (;;) {
                void* got = nullptr;
                if (redisReaderGetReply(reader_.get(), &got) != 0) return false;
                if (!got) break;
                unfinished_ = reader_->len - reader_->pos;
                take(static_cast<const Reply&>(collected_.reply));
            }
            // Of the whole reply, not of what waits for its rest: elements of an array are read as they come.
            if (unfinished_ > longest_ || is_endless_line()) return false;
        }
        return true;
    }

 private:
    struct Free {
        void operator()(redisReader* reader) const { redisReaderFree(reader); }
    };
    struct Collected {
        Reply reply;
        std::string source;
        enum class Field : std::uint8_t {
            other,
            id,
            time,
            payload,
            source,
            role
        } field = Field::other;  // whose value comes next
    };
    // A line whose end hiredis would look for from its beginning, again and again.
    bool is_endless_line() const;
    static redisReplyObjectFunctions* functions();
    static void* put(const redisReadTask* task, Reply::Kind kind, std::string_view words = {});
    static void* put_text(const redisReadTask* task, char* text, std::size_t length);
    static void put_in_map(Collected& into, std::string_view text);
    static void put_in_time(Collected& into, int index, std::string_view text);
    static void put_in_entry(Collected& into, const redisReadTask* task, std::string_view text);
    static void put_value(const Collected& into, StreamEntry& entry, std::string_view text);

    Collected collected_;
    std::size_t longest_ = 1024 * 1024;
    std::size_t unfinished_ = 0;  // bytes that came since the last whole reply
    std::unique_ptr<redisReader, Free> reader_;
};

// The id of a stream's entry: milliseconds-sequence.
bool is_entry_id(std::string_view words);

// What kind of reply came, without a word of it.
std::string_view shown_kind(const Reply& reply);

// What an error reply to a message asks for.
Remedy remedy_of(std::string_view words);

// An error reply as people may see it: without the arguments that Redis repeats of a command that it does not know, and
// with what is not supported.
std::string shown_words(std::string_view words);

// Whether an error reply to AUTH or SELECT says that our settings are wrong, rather than "come back later".
bool refuses_login(std::string_view words);

// Whether an error reply to any command says that we are not let in.
bool needs_login(std::string_view words);

}  // namespace eventbus::broker::redis
