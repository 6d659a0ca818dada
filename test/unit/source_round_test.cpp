// What it is: a sender's rounds over a source made of memory: what is handed over, parked, written down, and resumed.
// Who calls it: make unit.
// Never: needs a server.
#include "source/round.hpp"

#include <random>

#include "delivery_world.hpp"
#include "source_memory.hpp"

namespace eventbus::test {

namespace {

struct Route : source::Route {};

// A sender in memory. What it has not written down when it dies, the next one does not know.
class Host {
 public:
    Host(Disk& disk, World& world, const std::vector<std::int32_t>& ids)
        : world_(world), memory(disk, world.dispatcher), sources_{&memory} {
        std::vector<source::Route*> fresh;
        for (const auto id : ids) {
            routes_.push_back(std::make_unique<Route>());
            routes_.back()->id = id;
            routes_.back()->source = &memory;
            fresh.push_back(routes_.back().get());
        }
        for (auto* route : fresh) {
            memory.load_place(route);
            world.dispatcher.add_route(World::route(static_cast<std::uint32_t>(route->id)), memory.stream_of(route));
            memory.load_parked_keys(route);
        }
    }

    bool round() { return source::run_round(*this, sources_); }
    // Until there is nothing to do, at most for so long.
    void run_for(std::chrono::milliseconds time) {
        const auto end = world_.now + time;
        while (world_.now < end) {
            while (round()) {
            }
            world_.pass(50ms);
        }
    }

    void deliver() {
        world_.dispatcher.drive({}, world_.now);
        delivery::Report report;
        world_.dispatcher.report(report);
        for (const auto& letter : report.dead) dead.push_back(letter.event->id);
        world_.dispatcher.release(report.finished);
        source::take_back(sources_, report.finished, [&](const auto&) { ++strange; });
    }
    source::Route* stuck() {
        const auto id = world_.dispatcher.stuck();
        for (auto& route : routes_)
            if (id && route->id == static_cast<std::int32_t>(*id)) return route.get();
        return nullptr;
    }
    void write() {
        if (!writes) return;
        for (auto& route : routes_) {
            memory.save_place(route.get(), world_.dispatcher.status(static_cast<std::uint32_t>(route->id)).settled);
            memory.save_parked_keys(route.get());
            memory.saved(route.get());
        }
    }

    bool writes = true;
    std::vector<EventId> dead;
    std::size_t strange = 0;  // chunks that nobody knew

 private:
    World& world_;

 public:
    MemorySource memory;

 private:
    std::vector<source::Source*> sources_;
    std::vector<std::unique_ptr<Route>> routes_;
};

// First deliveries, key by key, are in order, and each event was delivered.
void expect_all_in_order(const Disk& disk, const std::vector<Sent>& delivered) {
    std::map<std::string, std::int64_t> last;
    std::set<std::int64_t> seen;
    for (const auto& sent : delivered) {
        if (!seen.insert(sent.id).second || !sent.key) continue;
        EXPECT_LT(last[*sent.key], sent.id) << "key " << *sent.key;
        last[*sent.key] = sent.id;
    }
    EXPECT_EQ(seen.size(), disk.records.size());
}

Disk records(std::size_t count, unsigned keys, unsigned seed) {
    Disk disk;
    std::mt19937 dice(seed);
    for (std::size_t i = 0; i < count; ++i) {
        const auto key = dice() % (keys + 1);
        disk.records.push_back({static_cast<std::int64_t>(i + 1), key == keys ? "" : "k" + std::to_string(key)});
    }
    return disk;
}

}  // namespace

TEST(Stream, NumbersChunksAndFreesThem) {
    struct Counted : source::Chunk {
        int* freed;
    };
    int freed = 0;
    auto make = [&](std::uint32_t count) {
        auto* chunk = new Counted();
        chunk->count = count;
        chunk->bytes = 10;
        chunk->freed = &freed;
        chunk->free = [](source::Chunk* of) {
            ++*static_cast<Counted*>(of)->freed;
            delete static_cast<Counted*>(of);
        };
        return chunk;
    };
    source::Stream stream{};
    stream.begin(4);
    EXPECT_TRUE(stream.is_empty());
    for (const std::uint32_t count : {2U, 0U, 3U}) stream.append(make(count));
    EXPECT_EQ(stream.first->id, 1U);
    EXPECT_EQ(stream.last->id, 3U);

    const source::Chunk* chunk = nullptr;
    std::uint32_t index = 0;
    ASSERT_TRUE(stream.first_unsettled({0, 0}, &chunk, &index));
    EXPECT_EQ(std::pair(chunk->id, index), std::pair(delivery::ChunkId{1}, 0U));
    ASSERT_TRUE(stream.first_unsettled({1, 1}, &chunk, &index));
    EXPECT_EQ(std::pair(chunk->id, index), std::pair(delivery::ChunkId{1}, 1U));
    ASSERT_TRUE(stream.first_unsettled({1, 2}, &chunk, &index));  // the second chunk is empty
    EXPECT_EQ(std::pair(chunk->id, index), std::pair(delivery::ChunkId{3}, 0U));
    EXPECT_FALSE(stream.first_unsettled({3, 3}, &chunk, &index));

    stream.first->next->held = 25;
    EXPECT_EQ(stream.take_back(2), 25U);  // from the middle
    EXPECT_EQ(stream.take_back(2), 0U);
    EXPECT_EQ(stream.take_back(3), 10U);
    EXPECT_EQ(stream.last->id, 1U);
    stream.append(make(1));
    EXPECT_EQ(stream.last->id, 4U);
    EXPECT_EQ(stream.take_back(1) + stream.take_back(4), 20U);
    EXPECT_TRUE(stream.is_empty());
    EXPECT_EQ(stream.last, nullptr);
    EXPECT_EQ(freed, 4);
}

TEST(Round, AsksSourcesInOrder) {
    std::string said;
    class Telling final : public source::Source {
     public:
        explicit Telling(std::string& to) : Source("telling"), said(to) {}
        std::string& said;
        int can_park = 2;
        bool read() override { return say("read", true); }
        void tell_room() override { say("room"); }
        bool arrange() override { return say("arrange"); }
        void confirm() override { say("confirm"); }
        bool comes_fast() override { return false; }
        bool has_more() override { return false; }
        bool take_back(const delivery::Report::Finished&) override { return false; }
        void load_place(source::Route*) override {}
        delivery::StreamId stream_of(const source::Route*) override { return 0; }
        void load_parked_keys(source::Route*) override {}
        void apply(source::Route*, bool) override {}
        void keep_for_unusable(std::int32_t, const char*) override {}
        void remove(source::Route*) override {}
        bool park_key(source::Route*) override { return say("park", can_park-- > 0); }
        void save_place(source::Route*, const delivery::Position&) override {}
        void save_parked_keys(source::Route*) override {}
        void saved(source::Route*) override {}
        counters::Answer answer(const source::Route*, const counters::Wanted&) override { return {}; }

     private:
        bool say(const char* what, bool answer = false) {
            said += (said.empty() ? "" : " ") + std::string(what);
            return answer;
        }
    } telling(said);
    struct {
        std::string& said;
        source::Route route;
        void deliver() { said += " deliver"; }
        source::Route* stuck() { return &route; }  // for as long as nobody can park it
        void write() { said += " write"; }
    } host{said, {1, &telling, nullptr}};
    source::Source* const all[] = {&telling};
    EXPECT_TRUE(source::run_round(host, all));
    EXPECT_EQ(said, "read deliver room park park park arrange write confirm");
}

TEST(Round, DeliversWhatASourceHas) {
    Disk disk = records(300, 5, 1);
    World world;
    Host host(disk, world, {1, 2});
    host.run_for(2000ms);
    for (const std::uint32_t lane : {1U, 2U}) {
        std::vector<Sent> own;
        std::copy_if(world.broker.sent.begin(), world.broker.sent.end(), std::back_inserter(own),
                     [&](const Sent& sent) { return sent.lane == lane; });
        EXPECT_EQ(own.size(), 300U);
        expect_all_in_order(disk, own);
    }
    EXPECT_EQ(disk.rows[1].place, 300U);
    EXPECT_EQ(host.memory.chunks, 0U);
    EXPECT_EQ(host.strange, 0U);
}

TEST(Round, AKeyThatIsRefusedForLongIsDeliveredBesideItsRoute) {
    Disk disk = records(400, 4, 2);
    World world;
    bool well = false;
    std::vector<Sent> delivered;
    world.broker.on_message = [&](const Sent& sent) {
        return std::optional<Answer>(sent.key == "k1" && !well ? retry("not now") : Answer{});
    };
    world.broker.on_settled = [&](const Sent& sent, const Answer& answer) {
        if (answer.verdict == Verdict::delivered) delivered.push_back(sent);
    };
    Host host(disk, world, {1});
    host.run_for(10000ms);
    EXPECT_EQ(host.memory.parked, 1U);
    EXPECT_EQ(disk.rows[1].keys.size(), 1U);
    EXPECT_EQ(disk.rows[1].place, 400U) << "the route has passed the key";
    well = true;
    host.run_for(40000ms);
    expect_all_in_order(disk, delivered);
    EXPECT_EQ(delivered.size(), 400U) << "each once: nothing has died";
    EXPECT_EQ(host.memory.ended, 1U);
    EXPECT_TRUE(disk.rows[1].keys.empty());
    EXPECT_EQ(host.memory.chunks, 0U);
}

TEST(Round, SendersThatDieLoseNothing) {
    std::size_t parked = 0;
    std::size_t resumed = 0;
    for (unsigned seed = 1; seed <= 40; ++seed) {
        std::mt19937 dice(seed);
        Disk disk = records(100 + dice() % 200, 1 + dice() % 6, seed);
        std::vector<Sent> delivered;
        bool well = false;
        for (unsigned life = 0;; ++life) {
            World world({}, seed);
            world.now += std::chrono::hours(life);
            world.broker.on_message = [&](const Sent& sent) {
                const bool refused = !well && (sent.key == "k0" || (!sent.key && sent.id % 7 == 0));
                return std::optional<Answer>(refused ? retry("not now") : Answer{});
            };
            world.broker.on_settled = [&](const Sent& sent, const Answer& answer) {
                if (answer.verdict == Verdict::delivered) delivered.push_back(sent);
            };
            resumed += disk.rows[1].keys.size();
            Host host(disk, world, {1});
            host.run_for(std::chrono::milliseconds(dice() % 12000));
            host.writes = false;  // what happens from now on is not written down
            host.run_for(std::chrono::milliseconds(dice() % 3000));
            parked += host.memory.parked;
            EXPECT_EQ(host.strange, 0U);
            if (life < 3) continue;
            well = host.writes = true;
            host.run_for(60000ms);
            EXPECT_TRUE(host.dead.empty());
            EXPECT_TRUE(disk.rows[1].keys.empty()) << "seed " << seed;
            EXPECT_EQ(disk.rows[1].place, disk.records.size()) << "seed " << seed;
            EXPECT_EQ(host.memory.chunks, 0U);
            break;
        }
        expect_all_in_order(disk, delivered);
        if (HasFailure()) FAIL() << "seed " << seed;
    }
    EXPECT_GT(parked, 40U);
    EXPECT_GT(resumed, 40U);
}

}  // namespace eventbus::test
