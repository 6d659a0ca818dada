// What it is: leaving out of the log's oldest segments what routes without a sender have not delivered, and counting it.
// Who calls it: the keeper's upkeep, and senders for routes whose row cannot be used.
// Never: leaves an event out without counting it: count and cursor are written together.
#include "processes/skip_unserved.hpp"

#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "processes/process.hpp"
#include "source/log/cursors.hpp"

namespace eventbus::processes {

bool matches(const router::TopicFilter* filter, std::string_view topic) {
    bool match = true;
    GuestError error;
    catch_guest(error, [&] { match = filter->matches(topic); });
    return match;
}

namespace {

struct Count {
    const router::TopicFilter* filter;         // nullptr: every event counts
    const cursors::ParkedEvents* parked_keys;  // of the route
    int parked_key_count;
    const cursors::ParkedEvents* parked_key;  // for which events are counted; nullptr: for the route
    int64 events;
};

void count_one(void* context, const log::Unsettled& event) {
    auto* count = static_cast<Count*>(context);
    const cursors::ParkedEvents* on = nullptr;
    for (int i = 0; i < count->parked_key_count; ++i)
        if (cursors::takes(count->parked_keys[i], event.id, event.key)) on = &count->parked_keys[i];
    if (on == count->parked_key && (on == nullptr || !cursors::has(on->settled, event.id)) &&
        (count->filter == nullptr || matches(count->filter, event.topic)))
        ++count->events;
}

// Leaves out what the cursor has not settled; returns whether there was a place to move.
bool skip_cursor(log::Cursor* cursor, int64 before, Count* count) {
    if (cursor->first_generation >= before) return false;
    for (int64 generation = log::oldest_generation(log::relations()); generation < before; ++generation) {
        BlockNumber block = 0;
        (void)log::scan_unsettled(*cursor, generation, &block, MaxBlockNumber, count_one, count);
    }
    *cursor = log::skipped_to(*cursor, before);
    return true;
}

}  // namespace

void skip_route(int32 route_id, const char* topics, int64 before) {
    cursors::Row row;
    log::Cursor cursor;
    log::load_cursor(route_id, 0, CurrentMemoryContext, &row, &cursor);
    std::string_view patterns = to_utf8_or_marks(topics);
    GuestError unusable;  // patterns written by hand, of which nobody knows what they take
    catch_guest(unusable, [&] { const router::TopicFilter tried(patterns); });
    const router::TopicFilter* filter = unusable.kind == GuestError::Kind::none
                                            ? make_guest<router::TopicFilter>(CurrentMemoryContext, patterns)
                                            : nullptr;

    int32* numbers;
    cursors::ParkedEvents* events;
    int parked_keys = cursors::load_parked_keys(route_id, CurrentMemoryContext, &numbers, &events);
    Count count{filter, events, parked_keys, nullptr, 0};
    bool moved = skip_cursor(&cursor, before, &count);
    for (int i = 0; i < parked_keys; ++i) {
        cursors::Row parked_row;
        log::Cursor parked_cursor;
        log::load_cursor(route_id, numbers[i], CurrentMemoryContext, &parked_row, &parked_cursor);
        count.parked_key = &events[i];
        if (!skip_cursor(&parked_cursor, before, &count)) continue;
        (void)log::save_cursor(&parked_row, parked_cursor, &events[i]);
        moved = true;
    }
    if (!moved) return;
    row.counters.skipped += count.events;
    (void)log::save_cursor(&row, cursor, nullptr);
}

// A sender that is not there when this begins loads no cursor before it is over: what it wrote over ours would undo
// cursor and count of what is gone from the log.
void skip_unserved(int64 before, bool (*is_served)(int32 broker_id), counters::LogSpace* room) {
    room->skipper = MyProcPid;
    if (!begin_transaction_on_extension("leaving out events")) {
        room->skipper = 0;
        return;
    }
    SPI_connect();
    run_query("SELECT id, topics, broker_id FROM eventbus.route_config WHERE source = 'log'", {}, true);
    struct Line {
        int32 id;
        char* topics;
        int32 broker_id;
    };
    auto count = static_cast<int>(SPI_processed);
    auto* lines = static_cast<Line*>(palloc(sizeof(Line) * (count + 1)));
    for (int i = 0; i < count; ++i) lines[i] = {int4_at(i, 1), text_at(i, 2), int4_at(i, 3)};
    for (int i = 0; i < count; ++i)
        if (!is_served(lines[i].broker_id)) skip_route(lines[i].id, lines[i].topics, before);
    SPI_finish();
    commit_transaction();
    room->skipper = 0;
    counters::stir_waiters(MyDatabaseId);
}

}  // namespace eventbus::processes
