// What it is: leaving out what routes have not delivered of the log's oldest segments, and counting it.
// Who calls it: the sender for its routes, the keeper for those that nobody serves.
// Never: leaves an event out without counting it: count and cursor are written together.
#include "worker/skip.hpp"

#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "worker/sender.hpp"

namespace eventbus::worker {

namespace {

constexpr BlockNumber pages_a_round = 512;

bool matches(const router::TopicFilter* filter, std::string_view topic) {
    bool match = true;
    GuestError error;
    catch_guest(error, [&] { match = filter->matches(topic); });
    return match;
}

int64 oldest_generation() {
    return log::current_generation(log::relations()) - log::segment_count + 1;
}

void count_for_routes(void* context, const log::Unsettled& event) {
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->stream == context && matches(route->filter, event.topic)) ++route->skipping;
    }
}

void begin(LogStream* stream, int64 before) {
    stream->skip_to = before;
    stream->skip_at = oldest_generation();
    stream->skip_block = 0;
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->stream == stream) route->skipping = 0;
    }
}

// Looks through what is not read yet, a part at a time: others shall not wait. True when it is through.
bool look_through(LogStream* stream) {
    if (stream->skip_at >= stream->skip_to) return true;
    if (!log::scan_unsettled(log::place_of(stream->reader), stream->skip_at, &stream->skip_block, pages_a_round,
                             count_for_routes, stream))
        return false;
    ++stream->skip_at;
    stream->skip_block = 0;
    return stream->skip_at >= stream->skip_to;
}

void finish(LogStream* stream) {
    delivery::ChunkId first_kept = stream->next_chunk;
    ListCell* cell;
    foreach (cell, stream->lent) {
        auto* lent = static_cast<Lent*>(lfirst(cell));
        if (lent->chunk->generation >= stream->skip_to) first_kept = std::min(first_kept, lent->id);
    }
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->stream != stream) continue;
        std::uint64_t lent = call_guest(
            [&] { return sender.dispatcher->leave_out(static_cast<delivery::RouteId>(route->id), first_kept); });
        route->stored.counters.skipped += route->skipping + static_cast<int64>(lent);
        route->first_generation = stream->skip_to;
    }
    stream->reader = log::skip_to(stream->reader, stream->skip_to);
    stream->skip_to = 0;
}

}  // namespace

bool skip_ahead() {
    int64 before = sender.place->room.skip_before;
    bool more = false;
    bool finished = false;
    bool in_transaction = false;
    ListCell* cell;
    foreach (cell, sender.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        if (before == 0) stream->skip_to = 0;  // there is room again
        if (log::place_of(stream->reader).first_generation >= before) continue;
        if (!in_transaction && !begin_transaction_on_extension("leaving out events")) return false;
        in_transaction = true;
        if (stream->skip_to == 0) begin(stream, before);
        if (look_through(stream)) {
            finish(stream);
            finished = true;
        } else {
            more = true;
        }
    }
    if (in_transaction) commit_transaction();
    if (finished) save_cursors();
    return more;
}

namespace {

struct Count {
    router::TopicFilter* filter;
    int64 events;
};

void count_one(void* context, const log::Unsettled& event) {
    auto* count = static_cast<Count*>(context);
    if (matches(count->filter, event.topic)) ++count->events;
}

void skip_route(int32 route_id, const char* topics, int64 before) {
    log::StoredCursor stored;
    log::load_cursor(route_id, CurrentMemoryContext, &stored);
    if (stored.cursor.first_generation >= before) return;
    auto* filter = call_guest([&] { return new router::TopicFilter(topics); });
    auto* callback = static_cast<MemoryContextCallback*>(palloc0(sizeof(MemoryContextCallback)));
    callback->arg = filter;
    callback->func = [](void* arg) { delete static_cast<router::TopicFilter*>(arg); };
    MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);

    Count count{filter, 0};
    for (int64 generation = oldest_generation(); generation < before; ++generation) {
        BlockNumber block = 0;
        (void)log::scan_unsettled(stored.cursor, generation, &block, MaxBlockNumber, count_one, &count);
    }
    stored.cursor = log::skipped_to(stored.cursor, before);
    stored.counters.skipped += count.events;
    (void)log::save_cursor(&stored, CurrentMemoryContext);
}

}  // namespace

void skip_unserved(int64 before, bool (*is_served)(int32 broker_id)) {
    if (!begin_transaction_on_extension("leaving out events")) return;
    SPI_connect();
    run_query("SELECT id, topics, broker_id FROM eventbus.route_config", {}, true);
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
}

}  // namespace eventbus::worker
