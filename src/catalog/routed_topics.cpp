#include "catalog/routed_topics.hpp"

#include <algorithm>
#include <vector>

#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "router/topic_index.hpp"

namespace eventbus::catalog {

struct Taken {
    router::TopicIndex patterns;
    std::vector<int64> from;  // of each route
    int64 everything_from = taken_never;
};

namespace {

void add(Taken* taken, std::string_view topics, int64 from) {
    bool everything = true;
    GuestError error;
    catch_guest(error, [&] {
        const router::TopicFilter filter(topics);
        taken->from.push_back(from);
        taken->patterns.add(filter, static_cast<std::uint32_t>(taken->from.size() - 1));
        everything = filter.matches_everything();
    });
    if (everything) taken->everything_from = std::min(taken->everything_from, from);
}

}  // namespace

Taken* read_taken(MemoryContext memory) {
    auto* taken = make_guest<Taken>(memory);
    // Routes of a restored dump have no cursor yet: they take all that there is.
    run_query(
        "SELECT r.topics, coalesce(c.creator_id, 0) FROM eventbus.route_config r "
        "LEFT JOIN eventbus.cursor c ON c.route_id = r.id AND c.parked_key = 0 WHERE r.source = 'log'");
    for (uint64 i = 0; i < SPI_processed; ++i) add(taken, to_utf8_or_marks(text_at(i, 1)), int8_at(i, 2));
    return taken;
}

int64 everything_taken_from(const Taken* taken) {
    return taken->everything_from;
}

int64 taken_from(Taken* taken, std::string_view topic) {
    int64 from = 0;
    GuestError error;
    catch_guest(error, [&] {
        int64 first = taken->everything_from;
        for (const auto route : taken->patterns.matches(topic)) first = std::min(first, taken->from[route]);
        from = first;
    });
    return from;
}

}  // namespace eventbus::catalog
