// What it is: a hiredis program that XADDs entries like ours from memory, in pipelines.
// Who calls it: bench/figures/drain.py, as the baseline for draining into a Redis stream.
// Never: reads a database; its entries are ready before its clock starts.
#include <hiredis/hiredis.h>

#include <array>

#include "program.hpp"

int main(int argc, char** argv) {
    const bench::Arguments arguments(argc, argv);
    const std::string& stream = arguments.text("stream");
    const std::string& payload = arguments.text("payload");
    const std::string& topic = arguments.text("topic");
    const std::string& source = arguments.text("source");
    const std::string id_prefix = arguments.text("id_prefix");  // "" for *; else what precedes the event's number
    const std::int64_t count = arguments.number("count");
    const std::int64_t pipeline = arguments.number("pipeline");
    const auto stamps = bench::make_stamps(count);
    std::vector<std::string> ids(stamps.size());
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = id_prefix.empty() ? "*" : id_prefix + stamps[i].id;

    redisContext* redis = redisConnectUnix(arguments.text("socket").c_str());
    if (!redis || redis->err) bench::fail("redis", redis ? redis->errstr : "out of memory");

    const std::int64_t start = bench::now_ns();
    for (std::int64_t done = 0; done < count;) {
        const std::int64_t end = std::min(done + pipeline, count);
        for (std::int64_t i = done; i < end; ++i) {
            const auto& stamp = stamps[static_cast<std::size_t>(i)];
            const std::array<std::string_view, 15> words = {"XADD",
                                                            stream,
                                                            ids[static_cast<std::size_t>(i)],
                                                            "id",
                                                            stamp.id,
                                                            "topic",
                                                            topic,
                                                            "payload",
                                                            payload,
                                                            "content_type",
                                                            "application/json",
                                                            "time",
                                                            stamp.time,
                                                            "source",
                                                            source};
            std::array<const char*, 15> pointers;
            std::array<std::size_t, 15> lengths;
            for (std::size_t w = 0; w < words.size(); ++w) {
                pointers[w] = words[w].data();
                lengths[w] = words[w].size();
            }
            redisAppendCommandArgv(redis, static_cast<int>(words.size()), pointers.data(), lengths.data());
        }
        for (std::int64_t i = done; i < end; ++i) {
            void* reply = nullptr;
            if (redisGetReply(redis, &reply) != REDIS_OK) bench::fail("redis", redis->errstr);
            const auto* answer = static_cast<redisReply*>(reply);
            if (answer->type == REDIS_REPLY_ERROR) bench::fail("redis", answer->str);
            freeReplyObject(reply);
        }
        done = end;
    }
    bench::print_rate(count, bench::now_ns() - start);
    redisFree(redis);
}
