// What it is: a broker in memory, and its driver, which can refuse, delay, drop, cut and block as a test says.
// Who calls it: the tests of delivery.
// Never: forgives a broken contract: what was borrowed is compared when its ticket settles.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "broker/driver.hpp"

namespace eventbus::test {

// Tests number their events; those of the WAL are several to a commit.
inline EventId id_of(std::int64_t number, bool of_wal) {
    return of_wal ? EventId{1 + static_cast<std::uint64_t>(number) / 4, number % 4} : EventId::of_log(number);
}
inline std::int64_t number_of(const EventId& id) {
    return id.is_of_log() ? id.number : static_cast<std::int64_t>(id.lsn - 1) * 4 + id.number;
}

inline std::set<std::int64_t> numbers_of(std::span<const EventId> ids) {
    std::set<std::int64_t> numbers;
    for (const auto& id : ids) numbers.insert(number_of(id));
    return numbers;
}
inline std::vector<EventId> ids_of(const std::set<std::int64_t>& numbers, bool of_wal) {
    std::vector<EventId> ids;
    for (const auto number : numbers) ids.push_back(id_of(number, of_wal));
    return ids;
}

struct Sent {
    std::uint64_t ticket = 0;
    std::uint32_t lane = 0;
    std::int64_t id = 0;
    std::optional<std::string> key;
    std::string name;
    std::string routing_key;
    unsigned connection = 0;
};

struct Answer {
    Verdict verdict = Verdict::delivered;
    Remedy remedy = Remedy::none;
    std::string reason;
};

inline Answer park(std::string reason) {
    return {Verdict::refused, Remedy::park, std::move(reason)};
}
inline Answer retry(std::string reason) {
    return {Verdict::refused, Remedy::retry, std::move(reason)};
}
inline Answer fix(std::string reason) {
    return {Verdict::refused, Remedy::fix_settings, std::move(reason)};
}

inline Answer forbidden(std::string reason = "ACCESS_REFUSED") {
    return {Verdict::refused, Remedy::forbidden, std::move(reason)};
}
inline Answer unclear(std::string reason = "ERR Connection refused") {
    return {Verdict::refused, Remedy::unclear, std::move(reason)};
}

class MemoryBroker {
 public:
    // What the broker does
    std::size_t window = 1000;                                     // tickets under way, of all lanes
    std::set<std::uint32_t> closed_lanes;                          // offer() says no
    bool silent = false;                                           // takes everything, answers nothing
    std::function<std::optional<Answer>(const Sent&)> on_message;  // nothing: stays open until answer()
    std::optional<broker::Link> refuses_links;                     // a new driver is down at its first drive()
    std::optional<std::string> blocked;                            // the reason
    bool forgets = false;                                          // a cut settles nothing, against the contract
    bool stalls = false;                                           // links stay connecting

    // What it tells a test as it happens
    std::function<void(const Sent&)> on_offer;
    std::function<void(const Sent&, const Answer&)> on_settled;

    // What it has seen
    std::vector<Sent> sent;
    std::vector<unsigned> attempts;  // one a connection
    std::size_t drives = 0;
    std::size_t broken_borrows = 0;

    std::unique_ptr<broker::Driver> connect(unsigned attempt) {
        attempts.push_back(attempt);
        cut_.reset();
        return std::make_unique<LinkDriver>(*this);
    }
    std::function<std::unique_ptr<broker::Driver>(unsigned, broker::TimePoint)> connector() {
        return [this](unsigned attempt, broker::TimePoint) { return connect(attempt); };
    }

    // The link breaks at the next drive(); what is open settles unknown.
    void cut(std::string reason, Remedy remedy = Remedy::retry) {
        cut_ = broker::Link{broker::LinkState::down, remedy, std::move(reason)};
    }
    // The same, with the broker's word that it is not about what is open.
    void leave(std::string reason) {
        cut(std::move(reason));
        cut_->goodbye = true;
    }
    // Another client has our place.
    void put_out(std::string reason) {
        leave(std::move(reason));
        cut_->contested = true;
    }
    // As a server does that ends connections on which nothing was sent for a while.
    void close_idle() {
        cut("the server closed the connection");
        cut_->idle = true;
    }
    // Answers the open ticket of an event on a lane at the next settle().
    bool answer(std::uint32_t lane, std::int64_t id, Answer answer) {
        for (std::size_t i = 0; i < open_.size(); ++i) {
            if (open_[i].sent.lane != lane || open_[i].sent.id != id) continue;
            settle_now(i, std::move(answer));
            return true;
        }
        return false;
    }
    void answer_all(const Answer& with = {}) {
        while (!open_.empty()) settle_now(0, with);
    }
    std::size_t open_count() const { return open_.size(); }
    const Sent& open_at(std::size_t i) const { return open_[i].sent; }
    void answer_at(std::size_t i, Answer answer) { settle_now(i, std::move(answer)); }

    std::vector<std::int64_t> ids(std::uint32_t lane) const {
        std::vector<std::int64_t> ids;
        for (const auto& s : sent) {
            if (s.lane == lane) ids.push_back(s.id);
        }
        return ids;
    }

 private:
    struct Open {
        Sent sent;
        broker::Outgoing outgoing;
        broker::Addressing addressing;
    };

    void settle_now(std::size_t i, Answer answer) {
        const auto& open = open_[i];
        const auto& out = open.outgoing;
        if (number_of(out.event->id) != open.sent.id || out.name != open.sent.name ||
            out.routing_key != open.sent.routing_key || out.addressing->kind != open.addressing.kind ||
            out.event->key != open.sent.key) {
            ++broken_borrows;
        }
        if (on_settled) on_settled(open.sent, answer);
        settled_.push_back({open.sent.ticket, answer.verdict, answer.remedy, std::move(answer.reason)});
        open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(i));
    }

    class LinkDriver : public broker::Driver {
     public:
        explicit LinkDriver(MemoryBroker& broker) : broker_(broker) {}
        broker::Interest interest() const override { return {}; }
        broker::TimePoint wake_at() const override { return broker::TimePoint::max(); }
        broker::Link drive(broker::Ready, broker::TimePoint) override {
            ++broker_.drives;
            if (broker_.refuses_links && !was_up_) return *broker_.refuses_links;
            if (broker_.cut_) {
                if (broker_.forgets) broker_.open_.clear();
                while (!broker_.open_.empty()) broker_.settle_now(broker_.open_.size() - 1, {Verdict::unknown, {}, {}});
                return *broker_.cut_;
            }
            if (broker_.stalls) return {};
            was_up_ = true;
            up_ = !broker_.blocked;
            answer_what_is_open();
            if (broker_.blocked) return {broker::LinkState::blocked, Remedy::none, *broker_.blocked};
            return {broker::LinkState::up, Remedy::none, {}};
        }
        bool offer(const broker::Outgoing& out) override {
            if (!up_ || broker_.open_.size() >= broker_.window || broker_.closed_lanes.count(out.lane) > 0)
                return false;
            Sent sent{out.ticket,
                      out.lane,
                      number_of(out.event->id),
                      {},
                      std::string(out.name),
                      std::string(out.routing_key),
                      static_cast<unsigned>(broker_.attempts.size())};
            if (out.event->key) sent.key = std::string(*out.event->key);
            if (broker_.on_offer) broker_.on_offer(sent);
            broker_.sent.push_back(sent);
            broker_.open_.push_back({std::move(sent), out, *out.addressing});
            return true;
        }
        std::size_t settle(std::span<Settlement> out) override {
            const auto count = std::min(out.size(), broker_.settled_.size());
            for (std::size_t i = 0; i < count; ++i) {
                out[i] = std::move(broker_.settled_.front());
                broker_.settled_.pop_front();
            }
            return count;
        }

     private:
        void answer_what_is_open() {
            if (broker_.silent) return;
            for (std::size_t i = 0; i < broker_.open_.size();) {
                auto answer = broker_.on_message ? broker_.on_message(broker_.open_[i].sent) : Answer{};
                if (answer) {
                    broker_.settle_now(i, std::move(*answer));
                } else {
                    ++i;
                }
            }
        }
        MemoryBroker& broker_;
        bool up_ = false;
        bool was_up_ = false;
    };

    std::deque<Open> open_;
    std::deque<Settlement> settled_;
    std::optional<broker::Link> cut_;
};

}  // namespace eventbus::test
