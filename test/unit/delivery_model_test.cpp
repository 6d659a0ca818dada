// What it is: delivery under random trouble, keys refused for long and crashes, against an obviously right reference.
// Who calls it: make -C test/unit delivery; EVENTBUS_SEEDS in the environment says how many runs.
// Never: depends on time or chance outside its seed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>

#include "delivery_reference.hpp"

namespace eventbus::test {
namespace {

class Model {
 public:
    explicit Model(unsigned seed) : dice_(seed), seed_(seed) {
        begin();
        sources_ = {{1, {0, 0, {}}}, {2, {1, 0, {}}}};
        for (unsigned i = 0; i < 3; ++i) add_route();
    }

    void run(unsigned steps) {
        for (unsigned i = 0; i < steps && !::testing::Test::HasFailure(); ++i) {
            if (one_in(80)) crash();
            act();
            turn();
            if (one_in(3)) world_->pass(std::chrono::milliseconds(dice_() % 400));
        }
        calm_ = true;
        world_->broker.refuses_links.reset();
        world_->broker.blocked.reset();
        world_->broker.closed_lanes.clear();
        world_->broker.stalls = false;
        stuck_.clear();
        for (const auto& mirror : mirrors_) {
            if (!mirror.removed) world_->dispatcher.pause_route(mirror.id, false);
        }
        for (int i = 0; i < 3000 && !at_rest() && !::testing::Test::HasFailure(); ++i) {
            turn();
            world_->pass(std::chrono::milliseconds(50));
        }
        check_end();
    }

    std::size_t delivered = 0;
    std::size_t parked = 0;
    std::size_t given_up = 0;
    std::size_t again = 0;
    std::size_t parked_keys = 0;
    std::size_t met = 0;
    std::size_t crashes = 0;

 private:
    static delivery::DispatcherLimits limits() {
        delivery::DispatcherLimits limits;
        limits.events = 200;
        limits.event_most = delivery::DispatcherLimits{}.link_most;
        limits.hold_most = limits.link_most;
        limits.park_after = std::chrono::milliseconds(500);
        limits.parked_keys = 3;
        limits.give_up_after = std::chrono::milliseconds(4000);
        limits.longest_drive = std::chrono::hours(1);
        return limits;
    }
    bool one_in(unsigned n) { return dice_() % n == 0; }
    Mirror& mirror_of(std::uint32_t id) { return mirrors_[id - 1]; }
    Mirror* some_route() {
        auto& mirror = mirrors_[dice_() % mirrors_.size()];
        return mirror.removed ? nullptr : &mirror;
    }

    void begin() {
        world_ = std::make_unique<World>(limits(), seed_);
        world_->broker.on_offer = [this](const Sent& sent) { offered(sent); };
        world_->broker.on_settled = [this](const Sent& sent, const Answer& answer) { settled(sent, answer); };
        world_->broker.on_message = [this](const Sent& sent) { return chance(sent); };
        finished_seen_ = 0;
        dead_seen_ = 0;
        delivered_by_.clear();
    }

    void add_route() {
        Mirror mirror;
        mirror.id = static_cast<std::uint32_t>(mirrors_.size() + 1);
        mirror.log = dice_() % 2;
        mirror.topic = std::array{"#", "a", "b"}[dice_() % 3];
        mirror.strict = one_in(2);
        mirror.max_attempts = one_in(3) ? 1 + dice_() % 4 : 0;
        mirror.stream = mirror.log + 1;
        if (sources_.count(mirror.stream) == 0) mirror.stream = new_source(mirror.log, logs_[mirror.log].size());
        world_->dispatcher.add_route(route(mirror), mirror.stream);
        const auto& log = logs_[mirror.log];
        for (auto at = sources_[mirror.stream].at; at < log.size(); ++at) expect(mirror, log[at], at);
        mirrors_.push_back(std::move(mirror));
    }
    unsigned new_source(unsigned log, std::size_t at) {
        sources_[++last_source_] = {log, at, {}};
        return last_source_;
    }
    static void expect(Mirror& mirror, const Ev& event, std::size_t at) {
        if (mirror.topic != "#" && mirror.topic != event.topic) return;
        mirror.events[event.id].key = event.key;
        mirror.events[event.id].at = at;
    }
    router::Route route(const Mirror& mirror) {
        std::string options = mirror.strict ? R"({"order":"strict")" : R"({"order":"key")";
        if (mirror.max_attempts > 0) options += ",\"max_attempts\":" + std::to_string(mirror.max_attempts);
        const std::string name = one_in(2) ? "queue:q" : "queue:a-long-enough-name-{key}-{topic/}";
        return World::route(mirror.id, mirror.topic, options + '}', name);
    }
    static std::string some_key(unsigned number) {
        return "a key beyond small strings, number " + std::to_string(number);
    }

    void act() {
        auto& broker = world_->broker;
        auto& dispatcher = world_->dispatcher;
        for (unsigned log = 0; log < logs_.size(); ++log) {
            if (one_in(2)) publish(log);
        }
        switch (dice_() % 26) {
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
            case 18:
                stuck_[{1 + dice_() % static_cast<unsigned>(mirrors_.size()),
                        one_in(4) ? std::string() : some_key(dice_() % 5)}] =
                    std::array{retry("full"), retry("full"), forbidden(), unclear()}[dice_() % 4];
                break;
            case 19:
                if (one_in(4)) stuck_.clear();
                if (one_in(4)) away_ = unclear("away");
                if (one_in(4)) away_ = forbidden("nothing is allowed");
                if (one_in(2)) away_.reset();
                break;
            case 20:
                if (auto* it = some_route(); it != nullptr && world_->status(it->id).idle) {
                    const auto from = sources_[it->stream];
                    it->stream = new_source(from.log, from.at);
                    dispatcher.move_route(it->id, it->stream);
                }
                break;
            default:
                if (broker.open_count() > 0) {
                    const auto at = dice_() % broker.open_count();
                    if (auto answer = chance(Sent(broker.open_at(at)))) broker.answer_at(at, *answer);
                }
        }
    }

    static bool is_wal(unsigned log) { return log == 1; }
    void publish(unsigned log) {
        for (unsigned n = dice_() % 30; n > 0; --n) {
            Ev event(one_in(2) ? "a" : "b", one_in(4) ? std::string() : some_key(dice_() % 5));
            event.id = next_id_++;
            event.of_wal = is_wal(log);
            for (auto& mirror : mirrors_) {
                if (!mirror.removed && mirror.log == log) expect(mirror, event, logs_[log].size());
            }
            logs_[log].push_back(std::move(event));
        }
    }

    // The host's round
    void turn() {
        for (auto& [stream, source] : sources_) {
            const auto count = std::min<std::size_t>(dice_() % 30, logs_[source.log].size() - source.at);
            if (is_aside(stream) || count == 0 || !world_->dispatcher.hungry(stream)) continue;
            lend(stream, count, nullptr);
        }
        for (auto& mirror : mirrors_) {
            if (!mirror.removed) arrange_asides(mirror);
        }
        world_->drive();
        check();
        while (const auto stuck = world_->dispatcher.stuck()) begin_aside(mirror_of(*stuck));
    }
    bool is_aside(unsigned stream) const {
        for (const auto& mirror : mirrors_) {
            for (const auto& aside : mirror.asides) {
                if (aside.stream == stream) return true;
            }
        }
        return false;
    }

    void lend(unsigned stream, std::size_t count, const Aside* aside) {
        auto& source = sources_[stream];
        std::vector<Ev> events;
        std::vector<std::size_t> places;
        for (; count > 0; --count, ++source.at) {
            const auto& event = logs_[source.log][source.at];
            const Expected like{event.key, source.at, 0, 0, false, false, false, 0};
            if (aside != nullptr && !aside->has(event.id, like)) continue;
            events.push_back(event);
            places.push_back(source.at);
        }
        if (events.empty() && aside != nullptr) return;
        const auto chunk = world_->lend(events, stream);
        source.lent[chunk] = std::move(places);
        for (const auto& event : events) {
            for (auto& mirror : mirrors_) {
                const auto found = mirror.events.find(event.id);
                if (mirror.removed || found == mirror.events.end()) continue;
                const auto* other = mirror.aside_of(event.id);
                if ((other == nullptr ? mirror.stream : other->stream) == stream) found->second.chunk = chunk;
            }
        }
    }

    // Up to where the log is settled on a stream.
    std::size_t cursor(unsigned stream, delivery::Position settled) {
        const auto& source = sources_[stream];
        for (auto it = source.lent.lower_bound(settled.chunk); it != source.lent.end(); ++it) {
            const auto index = it->first == settled.chunk ? settled.index : 0;
            if (index < it->second.size()) return it->second[index];
        }
        return source.at;
    }
    std::size_t cursor(const Mirror& mirror) { return cursor(mirror.stream, world_->status(mirror.id).settled); }
    std::size_t cursor(const Mirror& mirror, const Aside& aside) {
        return cursor(aside.stream, world_->dispatcher.status(mirror.id, aside.number).settled);
    }

    void begin_aside(Mirror& mirror) {
        Aside aside;
        aside.number = ++last_number_;
        aside.stream = new_source(mirror.log, cursor(mirror));
        world_->dispatcher.park_key_of(mirror.id, aside.number, aside.stream);
        aside.takes = world_->dispatcher.parked_key(mirror.id, aside.number);
        for (auto& [id, event] : mirror.events) {
            if (!event.settled && aside.has(id, event)) event.chunk = 0;
        }
        mirror.asides.push_back(aside);
        ++parked_keys;
    }
    void arrange_asides(Mirror& mirror) {
        auto& dispatcher = world_->dispatcher;
        for (auto& aside : mirror.asides) {
            if (aside.ended || !dispatcher.status(mirror.id, aside.number).idle) continue;
            const auto route_at = sources_[mirror.stream].at;
            if (sources_[aside.stream].at < route_at) {
                const auto most = route_at - sources_[aside.stream].at;
                if (one_in(2)) lend(aside.stream, std::min<std::size_t>(most, dice_() % 40), &aside);
            } else if (sources_[aside.stream].at == route_at && route_at >= aside.known && one_in(3)) {
                dispatcher.end_parked_key(mirror.id, aside.number);
                aside.ended = true;
                aside.behind = route_at;
                ++met;
            }
        }
        for (auto it = mirror.asides.begin(); it != mirror.asides.end();) {
            if (!it->ended || cursor(mirror) < it->behind) {
                ++it;
                continue;
            }
            dispatcher.remove_parked_key(mirror.id, it->number);
            sources_.erase(it->stream);
            it = mirror.asides.erase(it);
        }
    }

    // The sender dies; another one begins with the cursors.
    void crash() {
        ++crashes;
        for (auto& mirror : mirrors_) {
            if (mirror.removed) {
                mirror.events.clear();  // nothing of it is under way any more
                continue;
            }
            const auto settled_to = cursor(mirror);
            std::erase_if(mirror.asides, [&](const Aside& aside) { return aside.ended && settled_to >= aside.behind; });
            std::map<delivery::ParkedKeyId, std::pair<std::size_t, std::set<std::int64_t>>> saved;
            for (const auto& aside : mirror.asides) {
                const auto ahead = world_->dispatcher.settled_ahead(mirror.id, aside.number);
                saved[aside.number] = {cursor(mirror, aside), numbers_of(ahead)};
            }
            for (auto& [id, event] : mirror.events) {
                const auto* aside = mirror.aside_of(id);
                bool known = event.at < settled_to;
                if (aside != nullptr) {
                    const auto& [to, ahead] = saved[aside->number];
                    known = event.at < to || ahead.count(id) > 0;
                    ASSERT_EQ(known, event.settled) << "event " << id << " parked";
                }
                ASSERT_TRUE(event.settled || !known) << "a cursor has passed event " << id;
                if (!known) dead_.erase({mirror.id, id});
                event = {event.key, event.at, 0, 0, false, false, known, 0};
            }
            for (auto& aside : mirror.asides) {
                aside.takes.settled = ids_of(saved[aside.number].second, is_wal(mirror.log));
                aside.takes.tried.clear();
                aside.ended = false;
                aside.known = logs_[mirror.log].size();
                aside.stream = new_source(mirror.log, saved[aside.number].first);
            }
            mirror.stream = new_source(mirror.log, settled_to);
        }
        std::erase_if(sources_, [&](const auto& source) {
            return std::none_of(mirrors_.begin(), mirrors_.end(), [&](const Mirror& mirror) {
                return !mirror.removed && (mirror.stream == source.first || is_aside(source.first));
            });
        });
        begin();
        for (const auto& mirror : mirrors_) {
            if (mirror.removed) continue;
            world_->dispatcher.add_route(route(mirror), mirror.stream);
            for (const auto& aside : mirror.asides) {
                world_->dispatcher.add_parked_key(mirror.id, aside.number, aside.stream, aside.takes);
            }
        }
    }

    std::optional<Answer> chance(const Sent& sent) {
        if (calm_) return Answer{};
        if (sent.lane == broken_lane_) return fix("broken");
        if (away_) return away_;
        const auto found = stuck_.find({sent.lane, sent.key.value_or("")});
        if (found != stuck_.end()) return found->second;
        switch (dice_() % 22) {
            case 0:
                return park("poison");
            case 1:
            case 2:
                return retry("busy");
            case 3:
                return Answer{Verdict::unknown, Remedy::retry, "lane lost"};
            case 20:
                return forbidden();
            case 21:
                return unclear();
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
                    if (other.waits) doubts_.push_back({mirror.id, it->first});
                }
                if (mirror.strict) {
                    ASSERT_FALSE(other.open) << "two open tickets of a key with strict order";
                    if (older) doubts_.push_back({mirror.id, it->first});
                }
            }
        }
        if (event.offers++ > 0) ++again;
        if (event.offers == 1) event.delivered_before = delivered;
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
        } else if (answer.remedy == Remedy::park) {
            die(mirror, sent.id);
        } else {
            if (answer.remedy != Remedy::fix_settings) event.waits = true;
            if (event.refusals++ == 0) event.refused_at = world_->now;
            event.remedy = answer.remedy;
        }
        if (event.settled) event.waits = false;
    }
    // Dead letters by delivery's own decision: it may give up only what was tried often or long while others came.
    void check_given_up(const Dead& dead) {
        auto& mirror = mirror_of(dead.route);
        const auto& event = mirror.events.at(dead.id);
        if (dead_.count({dead.route, dead.id}) > 0) return;
        ASSERT_FALSE(event.settled) << "a dead letter of an event that was delivered";
        ASSERT_GT(event.refusals, 0U);
        if (dead.error.starts_with("max_attempts (")) {
            ASSERT_GT(mirror.max_attempts, 0U);
            ASSERT_GE(event.refusals, mirror.max_attempts);
        } else {
            ASSERT_TRUE(event.remedy == Remedy::forbidden || event.remedy == Remedy::unclear);
            ASSERT_GE(world_->now - event.refused_at, limits().give_up_after);
            ASSERT_GE(event.refusals, 2U);
            ASSERT_GT(delivered, event.delivered_before) << "nothing was delivered meanwhile: " << dead.error;
            ++given_up;
        }
        die(mirror, dead.id);
    }
    void die(Mirror& mirror, std::int64_t id) {
        mirror.events.at(id).settled = true;
        dead_.insert({mirror.id, id});
        ++parked;
    }

    void check_answers(const Mirror& mirror, unsigned stream, delivery::ParkedKeyId number) {
        for (const auto& [chunk, places] : sources_[stream].lent) {
            if (!world_->is_lent(chunk)) continue;
            for (std::uint32_t index = 0; index < places.size(); ++index) {
                const auto id = logs_[mirror.log][places[index]].id;
                const auto found = mirror.events.find(id);
                if (found == mirror.events.end() || found->second.chunk != chunk) continue;
                bool settled = world_->dispatcher.is_settled(mirror.id, {chunk, index}, number);
                if (number > 0) {
                    const auto& earlier = world_->dispatcher.parked_key(mirror.id, number).settled;
                    settled |= std::ranges::binary_search(earlier, id_of(id, is_wal(mirror.log)));
                }
                ASSERT_EQ(settled, found->second.settled) << "of event " << id;
            }
        }
    }

    void check() {
        ASSERT_EQ(world_->broker.broken_borrows, 0U);
        for (auto at = dead_seen_; at < world_->dead.size(); ++at) {
            if (!mirror_of(world_->dead[at].route).removed) check_given_up(world_->dead[at]);
        }
        for (const auto& doubt : std::exchange(doubts_, {})) {
            ASSERT_EQ(dead_.count(doubt), 1U) << "event " << doubt.second << " was passed by another of its key";
        }
        for (const auto& mirror : mirrors_) {
            if (mirror.removed) continue;
            const auto settled_to = cursor(mirror);
            for (const auto& [id, event] : mirror.events) {
                if (event.settled) continue;
                const auto* aside = mirror.aside_of(id);
                if (aside == nullptr && event.at >= settled_to) break;
                ASSERT_LE(aside == nullptr ? settled_to : cursor(mirror, *aside), event.at)
                    << "position passed event " << id;
            }
            check_answers(mirror, mirror.stream, 0);
            for (const auto& aside : mirror.asides) check_answers(mirror, aside.stream, aside.number);
        }
        for (; finished_seen_ < world_->finished.size(); ++finished_seen_) {
            for (const auto& mirror : mirrors_) {
                for (const auto& [id, event] : mirror.events) {
                    if (event.chunk != world_->finished[finished_seen_]) continue;
                    ASSERT_FALSE(event.open) << "the driver still borrows event " << id;
                    ASSERT_TRUE(event.settled || mirror.removed) << "chunk finished with event " << id << " unsettled";
                }
            }
        }
        for (; dead_seen_ < world_->dead.size(); ++dead_seen_) {
            const auto& dead = world_->dead[dead_seen_];
            if (mirror_of(dead.route).removed) continue;
            ASSERT_EQ(dead_.count({dead.route, dead.id}), 1U) << "a dead letter twice, or of an event that lives";
            ASSERT_TRUE(reported_.insert({dead.route, dead.id}).second || crashes > 0);
            ASSERT_EQ(dead.attempts, mirror_of(dead.route).events.at(dead.id).offers);
        }
    }

    bool at_rest() const {
        return world_->dispatcher.link() == broker::LinkState::up &&
               std::all_of(mirrors_.begin(), mirrors_.end(), [&](const Mirror& mirror) {
                   return mirror.removed || (world_->status(mirror.id).idle && mirror.asides.empty() &&
                                             sources_.at(mirror.stream).at == logs_[mirror.log].size());
               });
    }

    void check_end() {
        world_->drive();
        for (const auto& mirror : mirrors_) {
            if (mirror.removed) continue;
            for (const auto& [id, event] : mirror.events) {
                ASSERT_TRUE(event.settled) << "event " << id << " lost on route " << mirror.id;
            }
            const auto status = world_->status(mirror.id);
            EXPECT_TRUE(status.idle);
            EXPECT_TRUE(mirror.asides.empty()) << "a parked key has no end";
            EXPECT_EQ(status.in_flight, 0U);
            EXPECT_EQ(status.delivered, delivered_by_[mirror.id]);
        }
        for (const auto& dead : dead_) {
            EXPECT_TRUE(mirror_of(dead.first).removed || reported_.count(dead) == 1) << "a dead letter is not reported";
        }
        EXPECT_EQ(world_->lent_chunks(), 0U) << "chunks were not finished";
        EXPECT_EQ(world_->dispatcher.wake_at(), broker::TimePoint::max());
    }

    std::mt19937 dice_;
    unsigned seed_;
    std::unique_ptr<World> world_;
    std::array<std::vector<Ev>, 2> logs_;
    std::map<unsigned, Source> sources_;
    unsigned last_source_ = 2;
    delivery::ParkedKeyId last_number_ = 0;
    std::vector<Mirror> mirrors_;
    std::int64_t next_id_ = 1;
    std::uint32_t broken_lane_ = 0;
    std::map<std::pair<std::uint32_t, std::string>, Answer> stuck_;  // keys that a route's broker refuses for now
    std::optional<Answer> away_;                                     // what it says to everything
    std::vector<std::pair<std::uint32_t, std::int64_t>> doubts_;     // passed, although it waits: is it dead?
    bool calm_ = false;
    std::size_t finished_seen_ = 0;
    std::size_t dead_seen_ = 0;
    std::set<std::pair<std::uint32_t, std::int64_t>> dead_;
    std::set<std::pair<std::uint32_t, std::int64_t>> reported_;
    std::map<std::uint32_t, std::uint64_t> delivered_by_;
};

TEST(Model, RandomTrouble) {
    const char* wanted = std::getenv("EVENTBUS_SEEDS");
    const unsigned seeds = wanted != nullptr ? static_cast<unsigned>(std::atoi(wanted)) : 50;
    std::size_t delivered = 0, parked = 0, given_up = 0, again = 0, parked_keys = 0, met = 0, crashes = 0;
    for (unsigned seed = 1; seed <= seeds; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Model model(seed);
        model.run(400);
        if (HasFailure()) return;
        delivered += model.delivered;
        parked += model.parked;
        given_up += model.given_up;
        again += model.again;
        parked_keys += model.parked_keys;
        met += model.met;
        crashes += model.crashes;
    }
    EXPECT_GT(delivered, seeds * 100U);
    EXPECT_GT(parked, seeds * 3U);
    EXPECT_GT(given_up, seeds / 10U);
    EXPECT_GT(again, seeds * 20U);
    EXPECT_GT(parked_keys, seeds);
    EXPECT_GT(met, seeds / 2U);
    EXPECT_GT(crashes, seeds);
    RecordProperty("delivered", std::to_string(delivered));
    std::cout << delivered << " delivered, " << parked << " dead letters, " << given_up << " of them given up, "
              << again << " offered again, " << parked_keys << " parked keys, of which " << met << " met their route, "
              << crashes << " crashes\n";
}

}  // namespace
}  // namespace eventbus::test
