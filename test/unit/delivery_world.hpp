// What it is: a host for the tests of delivery: lends chunks, turns a clock by hand, gathers and frees the reports.
// Who calls it: delivery_*_test.cpp.
// Never: keeps a chunk's memory after it was reported as finished, so that ASan sees who still looks at it.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "delivery/dispatcher.hpp"
#include "memory_driver.hpp"

namespace eventbus::test {

using namespace std::chrono_literals;
using delivery::RouteState;

inline const broker::Module& memory_module() {
    static constexpr std::array<std::string_view, 2> kinds = {"exchange", "queue"};
    static constexpr std::array<std::string_view, 1> options = {"routing_key"};
    static const broker::Module module = [] {
        broker::Module m;
        m.protocol = "memory";
        m.kinds = kinds;
        m.route_options = options;
        m.read_route = [](std::string_view kind, const Options& given) {
            broker::RouteRead read;
            if (kind == "exchange") read.routing_key = "{topic}";
            if (const auto key = given.find("routing_key")) read.routing_key = key->text("a template");
            return read;
        };
        return m;
    }();
    return module;
}

struct Ev {
    Ev(std::string t, std::string k = {}, std::string p = "{}")
        : topic(std::move(t)), key(std::move(k)), payload(std::move(p)) {}
    std::string topic;
    std::string key;  // empty: none
    std::string payload;
    std::int64_t id = 0;  // 0: the next one
    std::string error{};  // why it cannot be delivered
    bool of_wal = false;
};

struct Dead {
    std::uint32_t route;
    std::int64_t id;
    std::string error;
    std::uint32_t attempts;
};

class World {
 public:
    explicit World(delivery::DispatcherLimits limits = {}, std::uint32_t seed = 1)
        : dispatcher(
              "broker \"memory\" (memory://here)",
              [this](unsigned attempt, broker::TimePoint) { return connect(attempt); }, [this] { return wall; }, limits,
              seed) {}

    MemoryBroker broker;
    broker::TimePoint now = broker::TimePoint(1000s);
    std::int64_t wall = 1'700'000'000'000'000;
    std::int64_t committed_after = 0;  // of what is lent
    std::function<std::unique_ptr<broker::Driver>(unsigned)> connect = [this](unsigned attempt) {
        return broker.connect(attempt);
    };
    delivery::Dispatcher dispatcher;

    std::vector<Dead> dead;
    std::vector<delivery::Notice> notices;
    std::vector<delivery::ChunkId> finished;  // in the order of reports, of all streams

    static router::Route route(std::uint32_t id, std::string_view topics = "#", std::string_view options = "{}",
                               std::string_view destination = "queue:q") {
        return router::Route(id, "r" + std::to_string(id), destination, topics, options, memory_module());
    }
    void add(std::uint32_t id, std::string_view topics = "#", std::string_view options = "{}", unsigned stream = 1) {
        dispatcher.add_route(route(id, topics, options), stream);
    }

    // Ids continue from 1; returns the chunk's id. Published now, or at `published_at`.
    delivery::ChunkId lend(const std::vector<Ev>& events, unsigned stream = 1, std::int64_t published_at = 0) {
        auto chunk = std::make_unique<Lent>();
        chunk->texts = events;
        for (const auto& text : chunk->texts) {
            Event event;
            event.id = id_of(text.id != 0 ? text.id : next_event_++, text.of_wal);
            event.published_at = published_at != 0 ? published_at : wall;
            event.topic = text.topic;
            if (!text.key.empty()) event.key = text.key;
            event.payload = text.payload;
            event.error = text.error;
            chunk->events.push_back(event);
        }
        const auto id = next_chunk_++;
        dispatcher.lend(stream, {id, chunk->events, committed_after});
        lent_[id] = std::move(chunk);
        return id;
    }
    delivery::ChunkId lend_many(std::size_t count, const std::string& key = {}, unsigned stream = 1) {
        return lend(std::vector<Ev>(count, Ev{"a", key}), stream);
    }

    void take_report() {
        delivery::Report report;
        dispatcher.report(report);
        for (auto& d : report.dead) dead.push_back({d.route, number_of(d.event->id), d.error, d.attempts});
        for (auto& n : report.notices) notices.push_back(std::move(n));
        for (const auto& f : report.finished) {
            EXPECT_EQ(lent_.count(f.chunk), 1U) << "chunk " << f.chunk << " finished twice";
            finished.push_back(f.chunk);
        }
        dispatcher.release(report.finished);
        for (const auto& f : report.finished) lent_.erase(f.chunk);
    }
    void drive() {
        dispatcher.drive({}, now);
        take_report();
    }
    // Drives until there is nothing to do without the clock moving.
    void run() {
        for (int i = 0; i < 100000; ++i) {
            drive();
            const bool answers_to_come = !broker.silent && !broker.on_message && broker.open_count() > 0;
            if (dispatcher.wake_at() > now && !answers_to_come) return;
        }
        FAIL() << "delivery does not come to rest";
    }
    void pass(std::chrono::microseconds time) {
        now += time;
        wall += time.count();
    }
    // Lets time pass in the dispatcher's own steps.
    void run_for(std::chrono::milliseconds time) {
        const auto end = now + time;
        run();
        while (dispatcher.wake_at() <= end) {
            const auto step = std::chrono::ceil<std::chrono::microseconds>(dispatcher.wake_at() - now);
            pass(std::max(step, 1us));
            run();
        }
        pass(std::chrono::duration_cast<std::chrono::microseconds>(end - now));
        run();
    }

    delivery::RouteStatus status(std::uint32_t id) const { return dispatcher.status(id); }
    RouteState state(std::uint32_t id) const { return status(id).state; }
    std::size_t lent_chunks() const { return lent_.size(); }
    bool is_lent(delivery::ChunkId chunk) const { return lent_.count(chunk) > 0; }
    delivery::ChunkId oldest_lent() const { return lent_.empty() ? next_chunk_ : lent_.begin()->first; }
    std::size_t told(std::string_view part) const {
        return static_cast<std::size_t>(std::count_if(notices.begin(), notices.end(), [&](const auto& notice) {
            return notice.text.find(part) != std::string::npos;
        }));
    }

 private:
    struct Lent {
        std::vector<Ev> texts;
        std::vector<Event> events;
    };
    std::map<delivery::ChunkId, std::unique_ptr<Lent>> lent_;
    std::int64_t next_event_ = 1;
    delivery::ChunkId next_chunk_ = 1;
};

using Ids = std::vector<std::int64_t>;

}  // namespace eventbus::test
