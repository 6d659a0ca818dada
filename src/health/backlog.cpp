#include "health/backlog.hpp"

#include <algorithm>

#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "router/route.hpp"

namespace eventbus::health {

namespace {

// Of a backlog so much is read; of a larger one the rest is taken to be alike.
constexpr int64 most_seen = 20000;
constexpr int64 most_counted = 10000;
constexpr int64 most_bytes = 64 * 1024 * 1024;
constexpr log::Limits limits{500, 1024 * 1024};

struct Look {
    const router::TopicFilter* topics;
    const cursors::ParkedEvents* parked_key;  // whose they are, or nullptr: the route's
    const cursors::ParkedEvents* parked_keys;
    int parked_key_count;
    int64 seen;     // events that are visible and not settled, whoever takes them
    int64 last_id;  // of them
    Backlog found;
};

bool is_ours(const Look& look, const Event& event) {
    if (look.parked_key != nullptr)
        return cursors::takes(*look.parked_key, event.id, event.key) &&
               !cursors::has(look.parked_key->settled, event.id);
    return std::none_of(
        look.parked_keys, look.parked_keys + look.parked_key_count,
        [&](const cursors::ParkedEvents& parked_key) { return cursors::takes(parked_key, event.id, event.key); });
}

bool matches(void* context, const Event& event, uint64, const log::Position&) {
    auto* look = static_cast<Look*>(context);
    ++look->seen;
    look->last_id = std::max(look->last_id, event.id.number);
    if (!is_ours(*look, event)) return false;
    bool match = true;
    GuestError error;
    catch_guest(error, [&] { match = event.topic.empty() || look->topics->matches(event.topic); });
    return match;
}

bool is_enough(const Look& look) {
    return look.seen >= most_seen || look.found.events >= most_counted || look.found.bytes >= most_bytes;
}

void add_chunk(Backlog* found, const log::Chunk* chunk) {
    if (found->oldest == 0) found->oldest = from_unix_us(chunk->events[0].published_at);
    for (uint32 i = 0; i < chunk->count; ++i) {
        ++found->events;
        found->bytes += static_cast<int64>(chunk->events[i].payload.size());
    }
}

// Ids are given in turn, so that those to come tell how much is left.
void estimate_rest(Look* look) {
    run_query("SELECT last_value FROM eventbus.event_id");
    const auto left = static_cast<double>(std::max<int64>(0, int8_at(0, 1) - look->last_id));
    const double share = left / static_cast<double>(std::max<int64>(1, look->seen));
    Backlog& found = look->found;
    found.events += static_cast<int64>(static_cast<double>(found.events) * share);
    found.bytes += static_cast<int64>(static_cast<double>(found.bytes) * share);
    found.estimated = true;
}

void look_from(const log::Cursor& cursor, Look* look) {
    log::Reader* reader = log::open_reader(cursor, nullptr, CurrentMemoryContext);
    bool through = true;
    for (int batch = 0; batch < 2 && through; ++batch) {  // the one that runs, then what has come since
        if (batch == 1) log::begin_batch(reader, log::take_snapshot(GetActiveSnapshot(), CurrentMemoryContext), 0);
        while (log::in_batch(reader) && through) {
            CHECK_FOR_INTERRUPTS();
            log::Chunk* chunk = log::read_chunk(reader, limits, {matches, look});
            if (chunk != nullptr) {
                add_chunk(&look->found, chunk);
                chunk->free(chunk);
            }
            through = !is_enough(*look) || !log::in_batch(reader);
        }
    }
    log::close_reader(reader);
    if (!through) estimate_rest(look);
}

}  // namespace

Backlog look_behind(int32 route_id, const log::Cursor& cursor, const char* topics) {
    std::string_view patterns = to_utf8_or_marks(topics);
    auto* filter = make_guest<router::TopicFilter>(CurrentMemoryContext, patterns);

    int32* numbers;
    cursors::ParkedEvents* events;
    const int count = cursors::load_parked_keys(route_id, CurrentMemoryContext, &numbers, &events);
    Look look = {filter, nullptr, events, count, 0, 0, {}};
    look_from(cursor, &look);
    Backlog all = look.found;
    for (int i = 0; i < count; ++i) {
        cursors::Row row;
        log::Cursor parked;
        log::load_cursor(route_id, numbers[i], CurrentMemoryContext, &row, &parked);
        Look of_key = {filter, &events[i], events, count, 0, 0, {}};
        look_from(parked, &of_key);
        const Backlog& found = of_key.found;
        if (found.oldest != 0 && (all.oldest == 0 || found.oldest < all.oldest)) all.oldest = found.oldest;
        all.events += found.events;
        all.bytes += found.bytes;
        all.estimated = all.estimated || found.estimated;
    }
    return all;
}

}  // namespace eventbus::health
