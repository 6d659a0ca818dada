// What it is: what the Redis driver's tests share: a pump around one driver, and a private redis-server.
// Who calls it: redis_*_test.cpp.
// Never: touches a Redis that it did not start.
#pragma once

#include <gtest/gtest.h>
#include <hiredis/hiredis.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "broker/driver.hpp"
#include "core/bad_input.hpp"
#include "module_support.hpp"
#include "sample_event.hpp"
#include "stream_support.hpp"

namespace eventbus::test {

using namespace eventbus::broker;
using namespace std::chrono_literals;

inline BrokerSettings redis_settings(const std::string& url) {
    BrokerSettings settings;
    settings.name = "cache";
    settings.url = parse_url(url, 6379);
    settings.source = "postgresql://unit/test";
    settings.password = settings.url.password;
    return settings;
}

inline std::string url_of(const Host& host) {
    return "redis://" + (host.is_unix() ? host.name : host.shown());
}

inline Addressing redis_addressing(const std::string& kind, std::int64_t maxlen = 0) {
    return addressing_of(kind, "{\"maxlen\":" + std::to_string(maxlen) + '}');
}

// One driver, driven by poll(), with what it borrows.
class Pump {
 public:
    explicit Pump(BrokerSettings settings, unsigned attempt = 0) : settings_(std::move(settings)) {
        IdleOptions idle;
        eventbus_driver_module()->read_broker(settings_, Options(known_broker_options(), "{}"), idle);
        driver_ = eventbus_driver_module()->connect(settings_, attempt, Clock::now());
    }
    explicit Pump(const std::string& url) : Pump(redis_settings(url)) {}

    Link step(std::chrono::milliseconds most = 20ms) {
        Ready ready;
        const Interest interest = driver_->interest();
        if (interest.fd >= 0) {
            const auto wake = driver_->wake_at();
            if (wake != TimePoint::max())
                most = std::clamp(std::chrono::ceil<std::chrono::milliseconds>(wake - Clock::now()), 0ms, most);
            ready = wait_for(interest, most);
        }
        link_ = driver_->drive(ready, Clock::now());
        Settlement some[64];
        while (const std::size_t count = driver_->settle(some))
            for (std::size_t i = 0; i < count; ++i) take(some[i]);
        return link_;
    }
    bool until(const std::function<bool()>& met) {
        const auto end = Clock::now() + 20s;
        while (!met() && Clock::now() < end) step();
        return met();
    }
    bool up() {
        return until([&] { return link_.state != LinkState::connecting; }) && link_.state == LinkState::up;
    }
    bool down() {
        return until([&] { return link_.state == LinkState::down; });
    }
    bool all_settled() {
        return until([&] { return settled.size() == offered_; });
    }

    bool offer(const std::string& kind, const std::string& name, const Event& event, std::int64_t maxlen = 0) {
        events_.push_back(event);
        const auto& addressing = addressings_.emplace_back(redis_addressing(kind, maxlen));
        const Outgoing outgoing{offered_ + 1, 7, &events_.back(), &addressing, names_.emplace_back(name), {}};
        if (!driver_->offer(outgoing)) return false;
        ++offered_;
        return true;
    }
    // Offers and waits for the outcome.
    Settlement send(const std::string& kind, const std::string& name, const Event& event, std::int64_t maxlen = 0) {
        EXPECT_TRUE(offer(kind, name, event, maxlen)) << link_.reason;
        EXPECT_TRUE(all_settled());
        return settled[offered_];
    }

    Driver& driver() { return *driver_; }
    const Link& link() const { return link_; }
    std::uint64_t offered() const { return offered_; }
    std::map<std::uint64_t, Settlement> settled;  // by ticket
    std::vector<std::uint64_t> order;             // tickets as they settled

 private:
    void take(const Settlement& settlement) {
        EXPECT_TRUE(settled.emplace(settlement.ticket, settlement).second) << "settled twice";
        order.push_back(settlement.ticket);
    }

    BrokerSettings settings_;
    std::unique_ptr<Driver> driver_;
    Link link_;
    std::uint64_t offered_ = 0;
    std::deque<Event> events_;
    std::deque<Addressing> addressings_;
    std::deque<std::string> names_;
};

inline void expect_delivered(const Settlement& settlement) {
    EXPECT_EQ(settlement.verdict, Verdict::delivered) << settlement.reason;
    EXPECT_EQ(settlement.remedy, Remedy::none);
    EXPECT_EQ(settlement.reason, "");
}

inline void expect_refused(const Settlement& settlement, Remedy remedy, const std::string& begin) {
    EXPECT_EQ(settlement.verdict, Verdict::refused);
    EXPECT_EQ(settlement.remedy, remedy) << settlement.reason;
    EXPECT_EQ(settlement.reason.substr(0, begin.size()), begin);
}

// A redis-server on a unix socket in a directory of its own, and a client of another make to look into it.
class RedisServer {
 public:
    explicit RedisServer(std::vector<std::string> more = {}) {
        std::vector<std::string> words{"redis-server",   "--port", "0",        "--unixsocket", socket(), "--dir",
                                       dir_.path(),      "--save", "",         "--appendonly", "no",     "--logfile",
                                       dir_.file("log"), "--bind", "127.0.0.1"};
        words.insert(words.end(), more.begin(), more.end());
        child_ = std::make_unique<Child>(words);
        EXPECT_TRUE(eventually([&] {
            context_.reset(redisConnectUnix(socket().c_str()));
            return context_ && !context_->err;
        })) << "redis-server did not start";
    }
    std::string socket() const { return dir_.file("redis.sock"); }
    std::string url() const { return "redis://" + socket(); }
    const Child& process() const { return *child_; }

    // A reply as text; arrays in brackets.
    std::string ask(const std::vector<std::string>& words) {
        std::vector<const char*> arguments;
        std::vector<std::size_t> lengths;
        for (const auto& word : words) {
            arguments.push_back(word.data());
            lengths.push_back(word.size());
        }
        std::unique_ptr<redisReply, void (*)(void*)> reply(
            static_cast<redisReply*>(
                redisCommandArgv(context_.get(), static_cast<int>(words.size()), arguments.data(), lengths.data())),
            freeReplyObject);
        return reply ? text(*reply) : std::string("no reply: ") + context_->errstr;
    }

 private:
    struct Free {
        void operator()(redisContext* context) const { redisFree(context); }
    };
    static std::string text(const redisReply& reply) {
        if (reply.type == REDIS_REPLY_INTEGER) return std::to_string(reply.integer);
        if (reply.type == REDIS_REPLY_NIL) return "nil";
        if (reply.type != REDIS_REPLY_ARRAY) return {reply.str, reply.len};
        std::string all;
        for (std::size_t i = 0; i < reply.elements; ++i) all += (i ? "|" : "") + text(*reply.element[i]);
        return "[" + all + "]";
    }

    TempDir dir_;
    std::unique_ptr<Child> child_;
    std::unique_ptr<redisContext, Free> context_;
};

}  // namespace eventbus::test
