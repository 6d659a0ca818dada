// What it is: Redis replies, parsed by hiredis, and what an error reply means; see replies.hpp.
// Who calls it: the Redis driver.
// Never: allocates for the reply to a message.
#include "broker/redis/replies.hpp"

#include <array>
#include <charconv>
#include <new>
#include <utility>

#include "core/time_text.hpp"

namespace eventbus::broker::redis {

namespace {

template <std::size_t count>
bool begins_with_one_of(std::string_view words, const std::array<std::string_view, count>& codes) {
    const std::string_view code = words.substr(0, words.find(' '));
    return std::find(codes.begin(), codes.end(), code) != codes.end();
}

constexpr std::size_t most_entries = 4096;     // nobody asks for so many
constexpr std::size_t kept_words = 64 * 1024;  // bytes, of a reply that is over
constexpr std::size_t longest_line = 16 * 1024;

// An array within arrays more often than in any answer to us. hiredis from 1.0 on takes any depth.
bool is_too_deep(const redisReadTask* task) {
    constexpr int deepest = 7;
    int depth = 0;
    for (; task && depth <= deepest; task = task->parent) ++depth;
    return depth > deepest;
}

}  // namespace

// Of anything but a line, its length comes first.
bool ReplyReader::is_endless_line() const {
    constexpr std::size_t longest_head = 32;
    const std::string_view rest(reader_->buf + reader_->pos, reader_->len - reader_->pos);
    return rest.size() > longest_line && rest.substr(0, longest_head).find("\r\n") == std::string_view::npos;
}

// Replies become the reader's one Reply; null ends the reading. Of arrays only the shape of XREVRANGE's is looked into:
// [[entry's id, [field, value, ...]], ...]; everything else in arrays is skipped.
void* ReplyReader::put(const redisReadTask* task, Reply::Kind kind, std::string_view words) {
    auto* into = static_cast<Collected*>(task->privdata);
    Reply& reply = into->reply;
    if (!task->parent) {
        reply.kind = kind;
        if (reply.words.capacity() > kept_words) std::string().swap(reply.words);
        reply.words.assign(words);
        reply.entries.clear();
        if (kind != Reply::Kind::integer) reply.number = 0;
    } else if (kind == Reply::Kind::entries && !task->parent->parent) {
        if (reply.entries.size() == most_entries) return nullptr;
        reply.entries.emplace_back();
    }
    return kind == Reply::Kind::entries && is_too_deep(task) ? nullptr : into;
}

void* ReplyReader::put_text(const redisReadTask* task, char* text, std::size_t length) {
    auto& into = *static_cast<Collected*>(task->privdata);
    if (task->parent && !task->parent->parent) {
        put_in_map(into, {text, length});
        put_in_time(into, task->idx, {text, length});
    } else if (task->parent) {
        if (!into.reply.entries.empty()) put_in_entry(into, task, {text, length});
    }
    switch (task->type) {
        case REDIS_REPLY_ERROR:
            return put(task, Reply::Kind::error, {text, length});
        case REDIS_REPLY_STATUS:
            return put(task, Reply::Kind::status, {text, length});
        default:
            return put(task, Reply::Kind::string, {text, length});
    }
}

// Of HELLO's names and values.
void ReplyReader::put_in_map(Collected& into, std::string_view text) {
    using Field = Collected::Field;
    if (into.field == Field::role) into.reply.words = text;
    into.field = text == "role" ? Field::role : Field::other;
}

// Of TIME's seconds and microseconds.
void ReplyReader::put_in_time(Collected& into, int index, std::string_view text) {
    constexpr std::int64_t million = 1'000'000;
    std::int64_t part = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), part);
    const bool is_number = error == std::errc() && end == text.data() + text.size() && part >= 0;
    std::int64_t& number = into.reply.number;
    if (index == 0 && is_number && part < 100'000 * million)
        number = part * million;
    else if (index == 1 && is_number && part < million && number > 0)
        number += part;
    else
        number = 0;
}

void ReplyReader::put_in_entry(Collected& into, const redisReadTask* task, std::string_view text) {
    StreamEntry& entry = into.reply.entries.back();
    entry.bytes += text.size();
    if (!task->parent->parent->parent) {
        const auto [dash, error] = std::from_chars(text.data(), text.data() + text.size(), entry.ms);
        if (error == std::errc() && dash != text.data() + text.size())
            std::from_chars(dash + 1, text.data() + text.size(), entry.sequence);
        return;
    }
    using Field = Collected::Field;
    if (task->idx % 2 != 0) return put_value(into, entry, text);
    into.field = text == "id"        ? Field::id
                 : text == "time"    ? Field::time
                 : text == "payload" ? Field::payload
                 : text == "source"  ? Field::source
                                     : Field::other;
}

void ReplyReader::put_value(const Collected& into, StreamEntry& entry, std::string_view text) {
    using Field = Collected::Field;
    if (into.field == Field::id) {
        entry.id = read_event_id(text).value_or(EventId());
    } else if (into.field == Field::time) {
        entry.mark.published_at = unix_us_of(text).value_or(0);
    } else if (into.field == Field::payload) {
        entry.mark.payload = payload_mark(text);
    } else if (into.field == Field::source) {
        entry.ours = text == into.source;
    }
}

redisReplyObjectFunctions* ReplyReader::functions() {
    static redisReplyObjectFunctions table = [] {
        redisReplyObjectFunctions made{};
        made.createString = put_text;
        made.createArray = [](const redisReadTask* task, auto) { return put(task, Reply::Kind::entries); };
        made.createInteger = [](const redisReadTask* task, long long number) {
            static_cast<Collected*>(task->privdata)->reply.number = number;
            return put(task, Reply::Kind::integer);
        };
        // Nobody has asked for RESP3; but hiredis 1 reads it, and without these the reply before it would stay in
        // place.
        [](auto& table) {
            if constexpr (requires { table.createBool; }) {
                table.createDouble = [](const redisReadTask* task, double, char*, std::size_t) {
                    return put(task, Reply::Kind::other);
                };
                table.createBool = [](const redisReadTask* task, int) { return put(task, Reply::Kind::other); };
            }
        }(made);
        made.createNil = [](const redisReadTask* task) { return put(task, Reply::Kind::other); };
        made.freeObject = [](void*) {};
        return made;
    }();
    return &table;
}

ReplyReader::ReplyReader(std::string source) : reader_(redisReaderCreateWithFunctions(functions())) {
    if (!reader_) throw std::bad_alloc();
    collected_.source = std::move(source);
    reader_->privdata = &collected_;
}

namespace {

constexpr std::size_t longest_shown = 300;  // of an error

// Redis 6 and 7.0: "to access one of the keys used as arguments"; 7.2 and Valkey: "No permissions to access a key".
// What names the command ("to run the 'xadd' command") is not about this message.
bool forbids_a_name(std::string_view words) {
    if (words.find(" to run ") != std::string_view::npos || words.find("command") != std::string_view::npos)
        return false;
    return words.find("key") != std::string_view::npos || words.find("channel") != std::string_view::npos;
}

// "ERR unknown command 'XADD'" (Redis), "ERR unsupported command 'xadd'" (Envoy), "ERR unknown or unsupported command"
// (Pika), "command 'XADD' is not allowed" (Codis), "command not supported".
bool refuses_command(std::string_view words) {
    static constexpr std::array<std::string_view, 4> phrases{"unknown", "unsupported", "not support", "not allowed"};
    std::string said(words.substr(0, std::min(words.find(", with args"), longest_shown)));
    for (char& c : said) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return (said.find("command") != std::string::npos || said.find("cmd") != std::string::npos) &&
           std::any_of(phrases.begin(), phrases.end(),
                       [&](std::string_view phrase) { return said.find(phrase) != std::string::npos; });
}

bool is_half_a_protocol(std::string_view words) {
    return refuses_command(words) || words.find("Sentinel") != std::string_view::npos;
}

// This command's own fault for ever, whatever else happens to the server, after Redis' sources.
bool is_permanent(std::string_view words) {
    static constexpr std::array<std::string_view, 6> errors{
        "WRONGTYPE ",
        "ERR Protocol error: invalid bulk length",  // above proto-max-bulk-len
        "ERR string exceeds maximum allowed size",
        "ERR Element too large",                    // RPUSH
        "ERR Elements are too large to be stored",  // XADD
        "ERR Protocol error: invalid multibulk length",
    };
    return std::any_of(errors.begin(), errors.end(), [&](std::string_view error) { return words.starts_with(error); });
}

}  // namespace

bool is_entry_id(std::string_view words) {
    const auto is_number = [](std::string_view text) {
        return !text.empty() && text.size() <= 20 && text.find_first_not_of("0123456789") == std::string_view::npos;
    };
    const auto dash = words.find('-');
    return dash != std::string_view::npos && is_number(words.substr(0, dash)) && is_number(words.substr(dash + 1));
}

std::string_view shown_kind(const Reply& reply) {
    switch (reply.kind) {
        case Reply::Kind::status:
            return "a status";
        case Reply::Kind::integer:
            return "an integer";
        case Reply::Kind::string:
            return reply.words.empty() ? "an empty string" : "a string";
        case Reply::Kind::entries:
            return "an array";
        default:
            return "nothing";
    }
}

// What we do not know for permanent may be the words of a proxy whose server is away.
Remedy remedy_of(std::string_view words) {
    static constexpr std::array<std::string_view, 9> later{
        "OOM", "LOADING", "READONLY", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "MISCONF"};
    static constexpr std::array<std::string_view, 4> settings{"NOAUTH", "WRONGPASS", "MOVED", "ASK"};
    if (begins_with_one_of(words, later)) return Remedy::retry;
    if (begins_with_one_of(words, settings)) return Remedy::fix_settings;
    if (words.starts_with("NOPERM")) return forbids_a_name(words) ? Remedy::forbidden : Remedy::fix_settings;
    // Not the event's fault: the server is too old for streams, or its administrator renamed the command.
    if (is_half_a_protocol(words)) return Remedy::fix_settings;
    return is_permanent(words) ? Remedy::park : Remedy::unclear;
}

std::string shown_words(std::string_view words) {
    const auto arguments = words.find(", with args");
    constexpr std::string_view dots = "...";
    std::string shown(words.substr(0, arguments));
    if (shown.size() > longest_shown) shown.replace(longest_shown - dots.size(), std::string::npos, dots);
    if (remedy_of(words) != Remedy::fix_settings || !is_half_a_protocol(words)) return shown;
    if (words.find("Sentinel") != std::string_view::npos)
        return shown + "; a Redis Sentinel is not supported, name the Redis server itself in the broker's URL";
    return shown +
           "; a Redis Sentinel, or a proxy that knows a part of Redis' commands only, is not supported; neither is a "
           "server that is too old for this command or has it renamed";
}

bool needs_login(std::string_view words) {
    static constexpr std::array<std::string_view, 3> codes{"NOAUTH", "WRONGPASS", "DENIED"};
    return begins_with_one_of(words, codes);
}

bool refuses_login(std::string_view words) {
    static constexpr std::array<std::string_view, 2> codes{"ERR", "NOPERM"};
    return needs_login(words) ||
           (begins_with_one_of(words, codes) && !words.starts_with("ERR max number of clients reached"));
}

}  // namespace eventbus::broker::redis
