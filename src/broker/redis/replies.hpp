// What it is: Redis replies, parsed by hiredis, and what an error reply means for its event.
// Who calls it: the Redis driver, with the bytes that came.
// Never: keeps what a reply carries besides the words of an error.
#pragma once

#include <hiredis/read.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/settlement.hpp"

namespace eventbus::broker::redis {

struct Reply {
    enum class Kind : std::uint8_t { status, integer, string, error, other };
    Kind kind = Kind::other;
    std::string words;  // of an error
};

class ReplyReader {
 public:
    ReplyReader();

    // Hands every complete reply to take(const Reply&). False: this is not Redis protocol.
    template <class Take>
    bool read(std::string_view bytes, Take&& take) {
        while (!bytes.empty()) {
            // hiredis moves the rest of its buffer down after every kilobyte of replies: keep the rest small.
            constexpr std::size_t slice = 16 * 1024;
            const std::size_t length = std::min(bytes.size(), slice);
            if (redisReaderFeed(reader_.get(), bytes.data(), length) != 0) return false;
            bytes.remove_prefix(length);
            for (;;) {
                void* got = nullptr;
                if (redisReaderGetReply(reader_.get(), &got) != 0) return false;
                if (!got) break;
                take(static_cast<const Reply&>(reply_));
            }
            // No reply to our commands is long: whoever goes on like this is not Redis.
            constexpr std::size_t longest = 1024 * 1024;
            if (reader_->len - reader_->pos > longest) return false;
        }
        return true;
    }

 private:
    struct Free {
        void operator()(redisReader* reader) const { redisReaderFree(reader); }
    };
    Reply reply_;
    std::unique_ptr<redisReader, Free> reader_;
};

// What an error reply to a message asks for: retry, fix_settings or park.
Remedy remedy_of(std::string_view words);

// Whether an error reply to AUTH or SELECT says that our settings are wrong, rather than "come back later".
bool refuses_login(std::string_view words);

// Whether an error reply to any command says that we are not let in.
bool needs_login(std::string_view words);

}  // namespace eventbus::broker::redis
