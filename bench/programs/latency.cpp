// What it is: the time from COMMIT to a subscriber having the event (Redis channel) or the NOTIFY (libpq LISTEN).
// Who calls it: bench/figures/latency.py.
// Never: compares runs; events and NOTIFYs take turns, a block of each, within one run.
//
// Both are published alike: BEGIN and the prepared statement in one round trip; then the clock is read; then COMMIT
// is sent. Both receivers block on their socket and read the same clock once the library has handed out the message.
#include <hiredis/hiredis.h>
#include <libpq-fe.h>
#include <poll.h>
#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "program.hpp"

namespace {

enum Kind { event, notify };
constexpr std::int64_t second = 1'000'000'000;
constexpr std::int64_t block = second / 2;
constexpr std::int64_t gap = second / 20;

struct Sample {
    std::atomic<std::int64_t> committed{0};  // just before COMMIT is sent
    std::atomic<std::int64_t> returned{0};   // once COMMIT's answer is here
    std::atomic<std::int64_t> received{0};
};

struct Run {
    std::int64_t rate;
    std::int64_t blocks;  // of both kinds together; even ones are events
    std::int64_t per_block;
    std::int64_t start;
    std::size_t payload_bytes;
    std::vector<Sample> samples;          // block by block
    std::atomic<std::int64_t> behind{0};  // began more than a millisecond after their time
    std::atomic<std::int64_t> received[2] = {0, 0};

    std::int64_t due(std::int64_t slot) const {
        return start + slot / per_block * (block + gap) + slot % per_block * second / rate;
    }
    Kind kind(std::int64_t slot) const { return slot / per_block % 2 == 0 ? event : notify; }
};

PGconn* connect(const std::string& conninfo) {
    PGconn* connection = PQconnectdb(conninfo.c_str());
    if (PQstatus(connection) != CONNECTION_OK) bench::fail("postgresql", PQerrorMessage(connection));
    return connection;
}

void require(PGconn* connection, PGresult* result) {
    const auto status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_PIPELINE_SYNC) {
        bench::fail("postgresql", PQerrorMessage(connection));
    }
    PQclear(result);
}

// Sends what is queued and reads the answers of `statements` statements and their sync.
void finish_pipeline(PGconn* connection, int statements) {
    if (!PQpipelineSync(connection)) bench::fail("pipeline", PQerrorMessage(connection));
    for (int i = 0; i < statements; ++i) {
        require(connection, PQgetResult(connection));
        if (PQgetResult(connection)) bench::fail("pipeline", "an answer too many");
    }
    require(connection, PQgetResult(connection));
}

void sleep_until(std::int64_t at) {
    const timespec until{at / second, at % second};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
    }
}

void publish(Run& run, PGconn* connection, std::int64_t first, std::int64_t step) {
    prctl(PR_SET_TIMERSLACK, 1UL);
    const auto slots = static_cast<std::int64_t>(run.samples.size());
    std::string payload;
    for (std::int64_t slot = first; slot < slots; slot += step) {
        const std::int64_t due = run.due(slot);
        sleep_until(due);
        if (bench::now_ns() - due > second / 1000) ++run.behind;
        payload = "{\"n\": " + std::to_string(slot) + ", \"text\": \"";
        payload.append(run.payload_bytes - payload.size() - 2, 'x').append("\"}");
        const char* values[] = {payload.c_str()};
        PQsendQueryPrepared(connection, "begin", 0, nullptr, nullptr, nullptr, 0);
        PQsendQueryPrepared(connection, run.kind(slot) == event ? "event" : "notify", 1, values, nullptr, nullptr, 0);
        finish_pipeline(connection, 2);
        run.samples[static_cast<std::size_t>(slot)].committed = bench::now_ns();
        PQsendQueryPrepared(connection, "commit", 0, nullptr, nullptr, nullptr, 0);
        finish_pipeline(connection, 1);
        run.samples[static_cast<std::size_t>(slot)].returned = bench::now_ns();
    }
}

PGconn* publisher(const bench::Arguments& arguments) {
    PGconn* connection = connect(arguments.text("conninfo"));
    require(connection, PQprepare(connection, "begin", "BEGIN", 0, nullptr));
    require(connection, PQprepare(connection, "commit", "COMMIT", 0, nullptr));
    for (const char* kind : {"event", "notify"}) {
        require(connection, PQprepare(connection, kind, arguments.text(kind).c_str(), 0, nullptr));
    }
    if (!PQenterPipelineMode(connection)) bench::fail("pipeline", PQerrorMessage(connection));
    return connection;
}

void received(Run& run, Kind kind, std::string_view payload, std::int64_t at) {
    constexpr std::string_view before = "\"n\": ";
    const auto found = payload.find(before);
    if (found == std::string_view::npos) bench::fail("payload", payload);
    const std::int64_t slot = std::strtoll(payload.data() + found + before.size(), nullptr, 10);
    if (slot < 0 || slot >= static_cast<std::int64_t>(run.samples.size()) || run.kind(slot) != kind) {
        bench::fail("not ours", payload);
    }
    std::int64_t nothing = 0;
    if (run.samples[static_cast<std::size_t>(slot)].received.compare_exchange_strong(nothing, at)) {
        ++run.received[kind];
    }
}

// Both receivers run until the program ends.
void subscribe(Run& run, redisContext* redis) {
    for (;;) {
        void* reply = nullptr;
        if (redisGetReply(redis, &reply) != REDIS_OK) bench::fail("redis", redis->errstr);
        const std::int64_t at = bench::now_ns();
        const auto* message = static_cast<redisReply*>(reply);
        if (message->type == REDIS_REPLY_ARRAY && message->elements == 3) {
            received(run, event, {message->element[2]->str, message->element[2]->len}, at);
        }
        freeReplyObject(reply);
    }
}

void listen(Run& run, PGconn* connection) {
    for (;;) {
        pollfd readable{PQsocket(connection), POLLIN, 0};
        if (poll(&readable, 1, -1) < 0) continue;
        if (!PQconsumeInput(connection)) bench::fail("listen", PQerrorMessage(connection));
        while (PGnotify* notification = PQnotifies(connection)) {
            const std::int64_t at = bench::now_ns();
            received(run, notify, notification->extra, at);
            PQfreemem(notification);
        }
    }
}

void print_kind(const Run& run, Kind kind, const char* name) {
    std::vector<double> micros;
    std::vector<double> after_return;
    std::int64_t lost = 0;
    for (std::size_t slot = 0; slot < run.samples.size(); ++slot) {
        const auto& sample = run.samples[slot];
        if (run.kind(static_cast<std::int64_t>(slot)) != kind) continue;
        if (sample.received == 0) ++lost;
        // The first block of each kind warms caches and plans.
        else if (static_cast<std::int64_t>(slot) >= 2 * run.per_block) {
            micros.push_back(static_cast<double>(sample.received - sample.committed) / 1000.0);
            after_return.push_back(static_cast<double>(sample.received - sample.returned) / 1000.0);
        }
    }
    std::sort(micros.begin(), micros.end());
    std::sort(after_return.begin(), after_return.end());
    const auto at = [](const std::vector<double>& sorted, double part) {
        return sorted.empty() ? 0.0 : sorted[static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1))];
    };
    std::printf(
        "\"%s\": {\"samples\": %zu, \"lost\": %lld, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, "
        "\"max\": %.1f, \"p50_after_return\": %.1f}, ",
        name, micros.size(), static_cast<long long>(lost), at(micros, 0.5), at(micros, 0.9), at(micros, 0.99),
        at(micros, 1.0), at(after_return, 0.5));
}

}  // namespace

int main(int argc, char** argv) {
    const bench::Arguments arguments(argc, argv);
    const std::int64_t rate = arguments.number("rate");
    const std::int64_t threads = arguments.number("threads");
    const std::int64_t blocks = std::max<std::int64_t>(2, arguments.number("seconds") * second / block / 2) * 2;
    const std::int64_t per_block = rate * block / second;
    Run run{rate,
            blocks,
            per_block,
            0,
            static_cast<std::size_t>(arguments.number("payload_bytes")),
            std::vector<Sample>(static_cast<std::size_t>(blocks * per_block)),
            {},
            {}};

    redisContext* redis = redisConnectUnix(arguments.text("socket").c_str());
    if (!redis || redis->err) bench::fail("redis", redis ? redis->errstr : "out of memory");
    freeReplyObject(redisCommand(redis, "SUBSCRIBE %s", arguments.text("channel").c_str()));
    PGconn* listener = connect(arguments.text("conninfo"));
    require(listener, PQexec(listener, ("LISTEN " + arguments.text("channel")).c_str()));

    std::vector<PGconn*> connections;
    for (std::int64_t i = 0; i < threads; ++i) connections.push_back(publisher(arguments));
    run.start = bench::now_ns() + second / 5;

    std::thread(subscribe, std::ref(run), redis).detach();
    std::thread(listen, std::ref(run), listener).detach();
    std::vector<std::thread> publishers;
    for (std::int64_t i = 0; i < threads; ++i) {
        publishers.emplace_back(publish, std::ref(run), connections[static_cast<std::size_t>(i)], i, threads);
    }
    for (auto& thread : publishers) thread.join();

    const std::int64_t deadline = bench::now_ns() + 10 * second;
    const std::int64_t each = blocks / 2 * per_block;
    while ((run.received[event] < each || run.received[notify] < each) && bench::now_ns() < deadline) {
        sleep_until(bench::now_ns() + second / 100);
    }
    std::printf("{");
    print_kind(run, event, "event");
    print_kind(run, notify, "notify");
    std::printf("\"published\": %zu, \"behind\": %lld}\n", run.samples.size(), static_cast<long long>(run.behind));
    std::fflush(stdout);
    std::_Exit(0);  // the receivers still block
}
