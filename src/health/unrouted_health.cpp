#include "health/unrouted_health.hpp"

#include "catalog/routed_topics.hpp"
#include "health/table_locks.hpp"
#include "postgres/attempt.hpp"
#include "postgres/encoding.hpp"
#include "postgres/query.hpp"

extern "C" {
#include "utils/builtins.h"
}

namespace eventbus::health {

namespace {

constexpr int most_named = 3;

// Those that no route takes by now either: so many of them, the youngest one, and the youngest few in words.
struct Topics {
    int count = 0;
    const char* youngest = nullptr;
    StringInfoData words;
};

Topics without_route() {
    catalog::Taken* taken = catalog::read_taken(CurrentMemoryContext);
    run_query(
        "SELECT topic, format('%s (%s event%s, last at %s)', topic, events, CASE WHEN events <> 1 THEN 's' END, "
        "last_at::timestamptz(0)) FROM eventbus.unrouted_store WHERE last_at > clock_timestamp() - interval '1 day' "
        "ORDER BY last_at DESC, topic");
    Topics topics;
    initStringInfo(&topics.words);
    for (uint64 i = 0; i < SPI_processed; ++i) {
        const char* topic = text_at(i, 1);
        if (catalog::taken_from(taken, to_utf8_or_marks(topic)) != catalog::taken_never) continue;
        if (topics.count++ == 0) topics.youngest = topic;
        if (topics.count <= most_named)
            appendStringInfo(&topics.words, "%s%s", topics.count > 1 ? ", " : "", text_at(i, 2));
    }
    return topics;
}

}  // namespace

Finding look_at_unrouted() {
    if (const char* locked = locked_table({"unrouted_store"})) return {"ok", locked, locked_table_hint};
    Topics topics;
    if (const ErrorData* error = attempt([&] { topics = without_route(); }))
        return {"warning", psprintf("eventbus.unrouted cannot be read: %s", error_words(error)),
                "Look at the table eventbus.unrouted_store; deliveries do not need it."};
    if (topics.count == 0) return {"ok", "no topic of the last 24 hours is known to have no route", nullptr};
    const char* more = topics.count > most_named ? psprintf(" and %d more", topics.count - most_named) : "";
    return {"ok",
            psprintf("%d topic%s of the last 24 hours %s taken by no route: %s%s", topics.count,
                     topics.count == 1 ? "" : "s", topics.count == 1 ? "was" : "were", topics.words.data, more),
            psprintf("Where somebody should have them, eventbus.create_route makes a route, and SELECT * FROM "
                     "eventbus.routes_for(%s) shows which take such events. See eventbus.unrouted.",
                     quote_literal_cstr(topics.youngest))};
}

}  // namespace eventbus::health
