// What it is: Redis replies, parsed by hiredis, and what an error reply means; see replies.hpp.
// Who calls it: the Redis driver.
// Never: allocates for a reply that is no error.
#include "broker/redis/replies.hpp"

#include <array>
#include <new>

namespace eventbus::broker::redis {

namespace {

// Replies become the reader's one Reply; what is nested in an array is skipped.
void* put(const redisReadTask* task, Reply::Kind kind, std::string_view words = {}) {
    auto* reply = static_cast<Reply*>(task->privdata);
    if (!task->parent) {
        reply->kind = kind;
        reply->words.assign(words);
    }
    return reply;
}

void* put_text(const redisReadTask* task, char* text, std::size_t length) {
    if (task->type == REDIS_REPLY_ERROR) return put(task, Reply::Kind::error, {text, length});
    return put(task, task->type == REDIS_REPLY_STATUS ? Reply::Kind::status : Reply::Kind::string);
}

redisReplyObjectFunctions* functions() {
    static redisReplyObjectFunctions table = [] {
        redisReplyObjectFunctions made{};
        made.createString = put_text;
        made.createArray = [](const redisReadTask* task, auto) { return put(task, Reply::Kind::other); };
        made.createInteger = [](const redisReadTask* task, long long) { return put(task, Reply::Kind::integer); };
        made.createNil = [](const redisReadTask* task) { return put(task, Reply::Kind::other); };
        made.freeObject = [](void*) {};
        return made;
    }();
    return &table;
}

template <std::size_t count>
bool begins_with_one_of(std::string_view words, const std::array<std::string_view, count>& codes) {
    const std::string_view code = words.substr(0, words.find(' '));
    return std::find(codes.begin(), codes.end(), code) != codes.end();
}

}  // namespace

ReplyReader::ReplyReader() : reader_(redisReaderCreateWithFunctions(functions())) {
    if (!reader_) throw std::bad_alloc();
    reader_->privdata = &reply_;
}

Remedy remedy_of(std::string_view words) {
    static constexpr std::array<std::string_view, 9> later{
        "OOM", "LOADING", "READONLY", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "MISCONF"};
    static constexpr std::array<std::string_view, 5> settings{"NOAUTH", "NOPERM", "WRONGPASS", "MOVED", "ASK"};
    if (begins_with_one_of(words, later)) return Remedy::retry;
    if (begins_with_one_of(words, settings)) return Remedy::fix_settings;
    // Not the event's fault: the server is too old for streams, or its administrator renamed the command.
    if (words.starts_with("ERR unknown command")) return Remedy::fix_settings;
    return Remedy::park;
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
