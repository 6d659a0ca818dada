// What it is: leaving out what routes have not delivered of the log's oldest segments, and counting it.
// Who calls it: the sender for its routes; processes/skip_unserved.cpp does it for those that nobody serves.
// Never: leaves an event out without counting it: count and cursor are written together.
#include <algorithm>
#include <span>

#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "processes/skip_unserved.hpp"
#include "sender/log_source.hpp"
#include "source/log/merged_cursors.hpp"

namespace eventbus::sender {

namespace {

constexpr BlockNumber pages_a_round = 512;
constexpr int still_ms = 1000;     // a cursor that has not moved for so long is not about to pass;
constexpr int patience_ms = 1500;  // others are given this to do it, while publishers wait

bool takes(const LogParkedKey* parked_key, const Event& event) {
    return !parked_key->ended && parked_key->takes->takes(event);
}

bool is_on_parked_key(const SenderRoute* route, const Event& event) {
    ListCell* cell;
    foreach (cell, log_of(route)->parked_keys)
        if (takes(static_cast<LogParkedKey*>(lfirst(cell)), event)) return true;
    return false;
}

bool had_settled(const log::Cursor* from, const log::Unsettled& event) {
    return from != nullptr && log::settles(*from, event.xid, event.at, event.id, event.file);
}

void count_for_routes(void* context, const log::Unsettled& event) {
    auto* stream = static_cast<LogStream*>(context);
    ++stream->skip_found;
    LogParkedKey* parked_key = stream->parked_key;
    if (parked_key != nullptr && takes(parked_key, event) && !had_settled(parked_key->from, event) &&
        processes::matches(parked_key->of->filter, event.topic) &&
        !std::binary_search(parked_key->takes->settled.begin(), parked_key->takes->settled.end(), event.id))
        ++parked_key->skipping;
    ListCell* cell;
    foreach (cell, log_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (log_of(route)->stream == stream && processes::matches(route->filter, event.topic) &&
            !had_settled(log_of(route)->from, event) && !is_on_parked_key(route, event))
            ++log_of(route)->skipping;
    }
}

delivery::RouteStatus status_of(const SenderRoute* route, delivery::ParkedKeyId parked_key) {
    return call_guest([&] { return sender.dispatcher->status(static_cast<delivery::RouteId>(route->id), parked_key); });
}

struct Standing {
    bool stuck;  // one has something to deliver, and has not moved for a while
    bool busy;   // one has something to deliver, and moves
};

void look_at(Progress* progress, const LogStream* stream, const delivery::RouteStatus& status, Standing* standing) {
    note_progress(progress, stream, status.settled);
    if (status.idle) return;
    bool moves = !ms_have_passed(progress->moved_at, steady_now(), still_ms);
    (moves ? standing->busy : standing->stuck) = true;
}

Standing standing_of(const LogStream* stream) {
    Standing standing = {};
    if (LogParkedKey* parked_key = stream->parked_key)
        look_at(&parked_key->progress, stream, status_of(parked_key), &standing);
    ListCell* cell;
    foreach (cell, log_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (log_of(route)->stream == stream) look_at(&log_of(route)->progress, stream, status_of(route, 0), &standing);
    }
    return standing;
}

// Whether the stream has to leave something out now. One that shares it with a stuck route and delivers continues by
// itself first, as soon as it has delivered what it was lent.
bool is_asked(LogStream* stream, int64 before, bool patient) {
    if (!patient) {
        stream->skip_to = before;
        return true;
    }
    Standing standing = standing_of(stream);
    stream->skip_to = standing.stuck ? before : 0;  // it is read no further
    if (stream->skip_to == 0) return false;
    if (stream->parked_key == nullptr) split(stream);
    return !standing.busy;
}

void begin(LogStream* stream) {
    stream->skip_at =
        std::max(log::oldest_generation(log::relations()), log::place_of(stream->reader).first_generation);
    stream->skip_block = 0;
    stream->skip_found = 0;
    if (stream->parked_key != nullptr) stream->parked_key->skipping = 0;
    ListCell* cell;
    foreach (cell, log_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (log_of(route)->stream == stream) log_of(route)->skipping = 0;
    }
}

// Where a segment was rewritten (VACUUM FULL), places do not tell any more what of the batch has been read of it.
bool cannot_tell(const LogStream* stream) {
    const log::Cursor& place = log::place_of(stream->reader);
    if (!place.in_batch || place.start <= log::Position()) return false;
    if (place.files[log::segment_of(stream->skip_at)] == stream->skip_file) return false;
    for (const source::Chunk* chunk = stream->first; chunk != nullptr; chunk = chunk->next)
        if (static_cast<const log::Chunk*>(chunk)->generation == stream->skip_at) return true;
    return false;
}

// Looks through what is not read yet, a part at a time: others shall not wait. True when it is through.
bool look_through(LogStream* stream) {
    if (stream->skip_at >= stream->skip_to) return true;
    std::uint32_t file = log::hold_file(stream->skip_at);
    if (stream->skip_block > 0 && stream->skip_file != file) begin(stream);
    stream->skip_file = log::hold_file(stream->skip_at);
    if (cannot_tell(stream)) {
        begin_again();
        return false;
    }
    if (!log::scan_unsettled(log::place_of(stream->reader), stream->skip_at, &stream->skip_block, pages_a_round,
                             count_for_routes, stream))
        return false;
    ++stream->skip_at;
    stream->skip_block = 0;
    return stream->skip_at >= stream->skip_to;
}

// Nothing is to be left out: the cursors are behind all of it, or will be as soon as they are written.
bool has_passed(const LogStream* stream) {
    const log::Cursor& place = log::place_of(stream->reader);
    return stream->skip_found == 0 && stream->is_empty() &&
           (!place.in_batch || place.start.generation >= stream->skip_to);
}

void finish(LogStream* stream) {
    if (has_passed(stream)) {
        stream->passed_before = stream->skip_to;
        stream->skip_to = stream->skip_at = 0;
        return;
    }
    answer_waiters();  // what is delivered by now cannot be told from what is left out any more
    // Not only the first ones: what was committed late in an old segment has been lent behind younger events.
    std::size_t count = 0;
    for (const source::Chunk* chunk = stream->first; chunk != nullptr; chunk = chunk->next) ++count;
    auto* ids = static_cast<delivery::ChunkId*>(palloc(sizeof(delivery::ChunkId) * (count + 1)));
    std::size_t old = 0;
    for (const source::Chunk* chunk = stream->first; chunk != nullptr; chunk = chunk->next)
        if (static_cast<const log::Chunk*>(chunk)->generation < stream->skip_to) ids[old++] = chunk->id;
    ListCell* cell;
    std::span<const delivery::ChunkId> left_out(ids, old);
    if (LogParkedKey* parked_key = stream->parked_key) {
        std::uint64_t lent =
            call_guest([&] { return sender.dispatcher->leave_out(parked_key->route, left_out, parked_key->number); });
        parked_key->of->row.counters.skipped += parked_key->skipping + static_cast<int64>(lent);
        parked_key->first_generation = stream->skip_to;
        if (parked_key->from != nullptr) *parked_key->from = log::skipped_to(*parked_key->from, stream->skip_to);
        parked_key->progress.settled = status_of(parked_key).settled;  // it is still stalled
    }
    foreach (cell, log_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (log_of(route)->stream != stream) continue;
        std::uint64_t lent = call_guest(
            [&] { return sender.dispatcher->leave_out(static_cast<delivery::RouteId>(route->id), left_out); });
        route->row.counters.skipped += log_of(route)->skipping + static_cast<int64>(lent);
        log_of(route)->first_generation = stream->skip_to;
        if (log_of(route)->from != nullptr)
            *log_of(route)->from = log::skipped_to(*log_of(route)->from, stream->skip_to);
        log_of(route)->progress.settled = status_of(route, 0).settled;
    }
    stream->reader = log::skip_to(stream->reader, stream->skip_to);
    stream->skip_to = stream->skip_at = 0;
}

}  // namespace

void note_progress(Progress* progress, const LogStream* stream, const delivery::Position& settled) {
    if (progress->stream == stream && progress->settled == settled) return;
    *progress = {stream, settled, steady_now()};
}

namespace {

// Routes that this process has, and cannot use. Nobody else writes their cursors.
void skip_unusable(int64 before) {
    bool asked = false;
    ListCell* cell;
    foreach (cell, log_now.unusable)
        asked = asked || static_cast<UnusableRoute*>(lfirst(cell))->skipped_before < before;
    if (!asked || !begin_transaction_on_extension("leaving out events")) return;
    SPI_connect();
    foreach (cell, log_now.unusable) {
        auto* parked = static_cast<UnusableRoute*>(lfirst(cell));
        processes::skip_route(parked->id, parked->topics, before);
        parked->skipped_before = before;
    }
    SPI_finish();
    commit_transaction();
    counters::stir_waiters(sender.database);
}

}  // namespace

bool skip_ahead() {
    static int64 asked = 0;
    static SteadyTime asked_at = 0;
    int64 before = sender.place->log_space.skip_before;
    if (before != asked) {
        asked = before;
        asked_at = steady_now();
    }
    ListCell* cell;
    if (before == 0) {  // there is room again
        foreach (cell, log_now.streams) {
            auto* stream = static_cast<LogStream*>(lfirst(cell));
            stream->skip_to = stream->skip_at = 0;
        }
        return false;
    }
    bool patient = !ms_have_passed(asked_at, steady_now(), patience_ms);
    if (!patient) skip_unusable(before);
    bool more = false;
    bool finished = false;
    bool in_transaction = false;
    foreach (cell, log_now.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        if (std::max(log::place_of(stream->reader).first_generation, stream->passed_before) >= before) continue;
        if (stream->skip_at == 0 && !is_asked(stream, before, patient)) continue;
        if (!in_transaction && !begin_transaction_on_extension("leaving out events")) return false;
        in_transaction = true;
        if (stream->skip_at == 0) begin(stream);
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

}  // namespace eventbus::sender
