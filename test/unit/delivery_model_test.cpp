// What it is: delivery under random trouble, checked step by step against an obviously right reference.
// Who calls it: make -C test/unit delivery; EVENTBUS_SEEDS in the environment says how many runs.
// Never: depends on time or chance outside its seed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>

#include "delivery_world.hpp"

namespace eventbus::test {
namespace {

struct Expected {  // what the reference knows of an event on a route
    std::string key;
    delivery::Position place;
    unsigned offers = 0;
    unsigned refusals = 0;
    bool open = false;
    bool waits = false;  // refused with retry, and not settled since
    bool settled = false;
};

struct Mirror {  // a route as the reference sees it
    std::uint32_t id = 0;
    unsigned stream = 1;
    std::string topic;  // "#" or one topic
    bool strict = false;
    unsigned max_attempts = 0;
    bool removed = false;
    std::map<std::int64_t, Expected> events;
};

class Model {
 public:
    explicit Model(unsigned seed) : dice_(seed), world_(limits(), seed) {
        world_.broker.on_offer = [this](const Sent& sent) { offered(sent); };
        world_.broker.on_settled = [this](const Sent& sent, const Answer& answer) { settled(sent, answer); };
        world_.broker.on_message = [this](const Sent& sent) { return chance(sent); };
        for (unsigned i = 0; i < 3; ++i) add_route();
    }

    void run(unsigned steps) {
        for (unsigned i = 0; i < steps && !::testing::Test::HasFailure(); ++i) {
            act();
            world_.drive();
            check();
            if (one_in(3)) world_.pass(std::chrono::milliseconds(dice_() % 400));
        }
        calm_ = true;
        world_.broker.refuses_links.reset();
        world_.broker.blocked.reset();
        world_.broker.closed_lanes.clear();
        world_.broker.stalls = false;
        for (const auto& mirror : mirrors_) {
            if (!mirror.removed) world_.dispatcher.pause_route(mirror.id, false);
        }
        for (int i = 0; i < 3000 && !at_rest() && !::testing::Test::HasFailure(); ++i) {
            world_.drive();
            check();
            world_.pass(std::chrono::milliseconds(50));
        }
        check_end();
    }

    std::size_t delivered = 0;
    std::size_t parked = 0;
    std::size_t again = 0;

 private:
    static delivery::DispatcherLimits limits() {
        delivery::DispatcherLimits limits;
        limits.events = 200;
        limits.event_most = delivery::DispatcherLimits{}.link_most;
        limits.hold_most = limits.link_most;
        return limits;
    }
    bool one_in(unsigned n) { return dice_() % n == 0; }
    Mirror& mirror_of(std::uint32_t id) { return mirrors_[id - 1]; }
    Mirror* some_route() {
        auto& mirror = mirrors_[dice_() % mirrors_.size()];
        return mirror.removed ? nullptr : &mirror;
    }

    void add_route() {
        Mirror mirror;
        mirror.id = static_cast<std::uint32_t>(mirrors_.size() + 1);
        mirror.stream = 1 + dice_() % 2;
        mirror.topic = std::array{"#", "a", "b"}[dice_() % 3];
        mirror.strict = one_in(2);
        mirror.max_attempts = one_in(3) ? 1 + dice_() % 4 : 0;
        world_.dispatcher.add_route(route(mirror), mirror.stream);
        mirrors_.push_back(std::move(mirror));
    }
    router::Route route(const Mirror& mirror) {
        std::string options = mirror.strict ? R"({"order":"strict")" : R"({"order":"key")";
        if (mirror.max_attempts > 0) options += ",\"max_attempts\":" + std::to_string(mirror.max_attempts);
        const std::string name = one_in(2) ? "queue:q" : "queue:a-long-enough-name-{key}-{topic/}";
        return World::route(mirror.id, mirror.topic, options + '}', name);
    }

    void act() {
        auto& broker = world_.broker;
        auto& dispatcher = world_.dispatcher;
        for (unsigned stream = 1; stream <= 2; ++stream) {
            if (one_in(2) && dispatcher.hungry(stream)) lend(stream);
        }
        switch (dice_() % 24) {
            case 0:
                broker.cut("cut");
                break;
            case 1:
                broker.refuses_links =
                    broker::Link{broker::LinkState::down, one_in(4) ? Remedy::fix_settings : Remedy::retry, "refused"};
                break;
            case 2:
            case 3:
                broker.refuses_links.reset();
                break;
            case 4:
                broker.blocked = "memory";
                break;
            case 5:
            case 6:
                broker.blocked.reset();
                break;
            case 7:
                broker.closed_lanes.insert(1 + dice_() % static_cast<unsigned>(mirrors_.size()));
                break;
            case 8:
            case 9:
                broker.closed_lanes.clear();
                break;
            case 10:
                broker.window = 1 + dice_() % 60;
                break;
            case 11:
                broken_lane_ = one_in(2) ? 1 + dice_() % static_cast<unsigned>(mirrors_.size()) : 0;
                break;
            case 12:
                if (const auto* it = some_route()) dispatcher.pause_route(it->id, one_in(2));
                break;
            case 13:
                if (const auto* it = some_route()) dispatcher.release_route(it->id);
                break;
            case 14:
                if (const auto* it = some_route()) dispatcher.change_route(route(*it));
                break;
            case 15:
                if (mirrors_.size() < 8 && one_in(4)) add_route();
                break;
            case 16:
                if (auto* it = some_route(); it != nullptr && one_in(8)) {
                    dispatcher.remove_route(it->id);
                    it->removed = true;
                }
                break;
            case 17:
                broker.stalls = one_in(3);
                break;
            default:
                if (broker.open_count() > 0) {
                    const auto at = dice_() % broker.open_count();
                    if (auto answer = chance(Sent(broker.open_at(at)))) broker.answer_at(at, *answer);
                }
        }
    }

    void lend(unsigned stream) {
        std::vector<Ev> events;
        for (unsigned n = dice_() % 30; n > 0; --n) {
            const std::string key =
                one_in(4) ? std::string() : "a key beyond small strings, number " + std::to_string(dice_() % 5);
            events.emplace_back(one_in(2) ? "a" : "b", key);
        }
        const auto chunk = world_.lend(events, stream);
        for (std::uint32_t i = 0; i < events.size(); ++i, ++next_id_) {
            for (auto& mirror : mirrors_) {
                if (mirror.removed || mirror.stream != stream) continue;
                if (mirror.topic != "#" && mirror.topic != events[i].topic) continue;
                mirror.events[next_id_] = {events[i].key, {chunk, i}, 0, 0, false, false, false};
            }
        }
    }

    std::optional<Answer> chance(const Sent& sent) {
        if (calm_) return Answer{};
        if (sent.lane == broken_lane_) return fix("broken");
        switch (dice_() % 20) {
            case 0:
                return park("poison");
            case 1:
            case 2:
                return retry("busy");
            case 3:
                return Answer{Verdict::unknown, Remedy::retry, "lane lost"};
            case 4:
            case 5:
            case 6:
                return std::nullopt;
            default:
                return Answer{};
        }
    }

    void offered(const Sent& sent) {
        auto& mirror = mirror_of(sent.lane);
        ASSERT_FALSE(mirror.removed) << "offered for a removed route";
        const auto found = mirror.events.find(sent.id);
        ASSERT_NE(found, mirror.events.end()) << "not an event of this route";
        auto& event = found->second;
        ASSERT_FALSE(event.open) << "offered twice";
        ASSERT_FALSE(event.settled) << "offered after it was settled";
        ASSERT_EQ(event.key, sent.key.value_or(""));
        if (!event.key.empty()) {
            for (auto it = mirror.events.begin(); it != mirror.events.end(); ++it) {
                const auto& other = it->second;
                if (it->first == sent.id || other.key != event.key || other.settled) continue;
                const bool older = it->first < sent.id;
                if (older && event.offers == 0) {
                    ASSERT_GT(other.offers, 0U) << "first offers out of order";
                    ASSERT_FALSE(other.waits) << "passed an event of its key that waits";
                }
                if (mirror.strict) {
                    ASSERT_FALSE(other.open) << "two open tickets of a key with strict order";
                    ASSERT_FALSE(older) << "strict order broken";
                }
            }
        }
        if (event.offers++ > 0) ++again;
        event.open = true;
    }

    void settled(const Sent& sent, const Answer& answer) {
        auto& mirror = mirror_of(sent.lane);
        auto& event = mirror.events.at(sent.id);
        ASSERT_TRUE(event.open);
        event.open = false;
        if (mirror.removed || answer.verdict == Verdict::unknown) return;
        if (answer.verdict == Verdict::delivered) {
            event.settled = true;
            ++delivered;
            ++delivered_by_[mirror.id];
        } else if (answer.remedy == Remedy::retry) {
            event.waits = true;
            ++event.refusals;
            if (event.refusals == mirror.max_attempts) die(mirror, sent.id);
        } else if (answer.remedy == Remedy::park) {
            die(mirror, sent.id);
        }
        if (event.settled) event.waits = false;
    }
    void die(Mirror& mirror, std::int64_t id) {
        mirror.events.at(id).settled = true;
        dead_.insert({mirror.id, id});
        ++parked;
    }

    void check() {
        ASSERT_EQ(world_.broker.broken_borrows, 0U);
        for (const auto& mirror : mirrors_) {
            if (mirror.removed) continue;
            const auto status = world_.status(mirror.id);
            for (const auto& [id, event] : mirror.events) {
                if (event.settled) continue;
                ASSERT_LE(status.settled, event.place) << "position passed event " << id;
                break;
            }
            for (auto it = mirror.events.rbegin(); it != mirror.events.rend(); ++it) {
                const auto& [id, event] = *it;
                if (event.place.chunk < world_.oldest_lent()) break;
                if (!world_.is_lent(event.place.chunk)) continue;
                ASSERT_EQ(world_.dispatcher.is_settled(mirror.id, event.place), event.settled) << "of event " << id;
            }
        }
        for (; finished_seen_ < world_.finished.size(); ++finished_seen_) {
            for (const auto& mirror : mirrors_) {
                for (const auto& [id, event] : mirror.events) {
                    if (event.place.chunk != world_.finished[finished_seen_]) continue;
                    ASSERT_FALSE(event.open) << "the driver still borrows event " << id;
                    ASSERT_TRUE(event.settled || mirror.removed) << "chunk finished with event " << id << " unsettled";
                }
            }
        }
    }

    bool at_rest() const {
        return world_.dispatcher.link() == broker::LinkState::up &&
               std::all_of(mirrors_.begin(), mirrors_.end(),
                           [&](const Mirror& mirror) { return mirror.removed || world_.status(mirror.id).idle; });
    }

    void check_end() {
        world_.drive();
        for (const auto& mirror : mirrors_) {
            if (mirror.removed) continue;
            for (const auto& [id, event] : mirror.events) {
                ASSERT_TRUE(event.settled) << "event " << id << " lost on route " << mirror.id;
            }
            const auto status = world_.status(mirror.id);
            EXPECT_TRUE(status.idle);
            EXPECT_EQ(status.in_flight, 0U);
            EXPECT_EQ(status.delivered, delivered_by_[mirror.id]);
        }
        std::set<std::pair<std::uint32_t, std::int64_t>> reported;
        for (const auto& dead : world_.dead) {
            EXPECT_TRUE(reported.insert({dead.route, dead.id}).second) << "dead letter twice";
            EXPECT_EQ(dead.attempts, mirror_of(dead.route).events.at(dead.id).offers);
        }
        EXPECT_EQ(reported, dead_);
        EXPECT_EQ(world_.lent_chunks(), 0U) << "chunks were not finished";
        EXPECT_EQ(world_.dispatcher.wake_at(), broker::TimePoint::max());
    }

    std::mt19937 dice_;
    World world_;
    std::vector<Mirror> mirrors_;
    std::int64_t next_id_ = 1;
    std::uint32_t broken_lane_ = 0;
    bool calm_ = false;
    std::size_t finished_seen_ = 0;
    std::set<std::pair<std::uint32_t, std::int64_t>> dead_;
    std::map<std::uint32_t, std::uint64_t> delivered_by_;
};

TEST(Model, RandomTrouble) {
    const char* wanted = std::getenv("EVENTBUS_SEEDS");
    const unsigned seeds = wanted != nullptr ? static_cast<unsigned>(std::atoi(wanted)) : 150;
    std::size_t delivered = 0;
    std::size_t parked = 0;
    std::size_t again = 0;
    for (unsigned seed = 1; seed <= seeds; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Model model(seed);
        model.run(400);
        if (HasFailure()) return;
        delivered += model.delivered;
        parked += model.parked;
        again += model.again;
    }
    EXPECT_GT(delivered, seeds * 100U);
    EXPECT_GT(parked, seeds * 3U);
    EXPECT_GT(again, seeds * 20U);
    RecordProperty("delivered", std::to_string(delivered));
    std::cout << delivered << " delivered, " << parked << " dead letters, " << again << " offered again\n";
}

}  // namespace
}  // namespace eventbus::test
