// What it is: feeding the dispatcher: chunks of the log in, finished chunks out.
// Who calls it: the sender's loop.
// Never: keeps a transaction open while events are on their way.
#include <algorithm>

#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "sender/log_source.hpp"
#include "settings/settings.hpp"

namespace eventbus::sender {

namespace {

constexpr Size chunk_bytes = 2 * 1024 * 1024;  // said in eventbus.batch_events' description
// All streams together. Beyond it only those that hold nothing are lent something, and little.
constexpr Size most_lent = 32 * 1024 * 1024;
constexpr Size kept_for_moving = most_lent / 2;  // the rest is not for those that are stalled
constexpr log::Limits little = {50, 64 * 1024};
// Of a chunk's events for all routes of the stream: what many take is read in smaller parts.
constexpr Size most_tickets = 8 * 1024 * 1024 / delivery::bytes_a_ticket;

bool wants_to_read(const LogStream* stream, std::uint64_t commits) {
    if (stream->parked_key != nullptr || stream->skip_to != 0) return false;
    if (!log::in_batch(stream->reader) && !stream->must_look && stream->seen_commits == commits) return false;
    return has_room(stream);
}

// Where somebody has locked a segment (VACUUM FULL, LOCK TABLE) nothing is read, but all else continues.
bool segments_are_free() {
    constexpr unsigned most_doublings = 6;
    log_now.segments_locked_ms = 1L << std::min(log_now.times_locked, most_doublings);
    const log::Relations& log = log::relations();
    // All that is read: who holds one of these locks waits for none, or DROP EXTENSION would have to be the one to
    // yield.
    for (Oid relation : {log.generation, log.segments[0], log.segments[1], log.segments[2], log.segments[3]}) {
        if (ConditionalLockRelationOid(relation, AccessShareLock)) continue;
        ++log_now.times_locked;
        return false;
    }
    log_now.segments_locked_ms = 0;
    log_now.times_locked = 0;
    return true;
}

// Batches end where those of its routes do: within one, each has a cursor that says what it has settled.
log::XidSnapshot batch_end(const LogStream* stream, const log::XidSnapshot& now) {
    log::XidSnapshot end = now;
    if (stream->come_with == 0 && stream->arranged == log_now.arranged) return end;
    ListCell* cell;
    foreach (cell, log_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (log_of(route)->stream != stream || log_of(route)->from == nullptr || !log_of(route)->from->in_batch)
            continue;
        const log::XidSnapshot& theirs = log_of(route)->from->batch;
        if (log::is_later(theirs, log::place_of(stream->reader).done) && log::is_later(end, theirs)) end = theirs;
    }
    return end;
}

log::Limits limits_of(const LogStream* stream) {
    log::Limits limits{static_cast<uint32>(settings::batch_events), chunk_bytes};
    bool any_paused = std::any_of(stream->takers, stream->takers + stream->taker_count,
                                  [](const SenderRoute* route) { return route->paused; });
    if (log_now.lent_bytes >= (any_paused ? kept_for_moving : most_lent)) return little;
    Size shared = most_tickets / std::max<Size>(stream->tickets_each, 1);
    limits.events = std::min(limits.events, std::max(little.events, static_cast<uint32>(shared)));
    return limits;
}

// A little at a time: most of it is other events, and routes have the right of way.
void read_parked_key(LogStream* stream) {
    constexpr log::Limits part = {250, 256 * 1024};
    if (!log::in_batch(stream->reader))
        log::begin_batch(stream->reader, log::horizon_of(log_of(stream->parked_key->of)->stream->reader), 0);
    log::Chunk* chunk =
        log::read_chunk(stream->reader, log_now.lent_bytes < most_lent ? part : little, filter_of(stream));
    stream->looked_at = steady_now();
    sender.unsaved = true;
    if (chunk != nullptr) lend(stream, chunk);
}

}  // namespace

void begin_again() {
    if (!sender.begin_again)
        ereport(LOG,
                (errmsg("pg_eventbus: broker \"%s\": a segment of the event log was rewritten while it was read; the "
                        "sender begins its batch again",
                        sender.broker_name)));
    sender.begin_again = true;
}

bool has_room(const LogStream* stream) {
    if (!stream->is_empty() && log_now.lent_bytes >= most_lent) return false;
    bool is_scarce = !stream->is_empty() && log_now.lent_bytes >= kept_for_moving;
    return call_guest([&] {
        return sender.dispatcher->hungry(stream->id) && !(is_scarce && sender.dispatcher->stands_still(stream->id));
    });
}

bool feed_streams() {
    std::uint64_t commits = sender.place->commits;  // before the snapshot: what is counted, it sees
    LogStream* parked_key = parked_key_to_read();
    bool any = parked_key != nullptr;
    ListCell* cell;
    foreach (cell, log_now.streams) any = any || wants_to_read(static_cast<LogStream*>(lfirst(cell)), commits);
    if (!any) return false;

    bool more = false;
    begin_transaction(nullptr);
    if (!segments_are_free()) {
        commit_transaction();
        return false;
    }
    // With the locks held: whoever stores the rows again (ALTER TABLE) makes them rows of a transaction of their own,
    // which an older snapshot does not see.
    PopActiveSnapshot();
    PushActiveSnapshot(GetTransactionSnapshot());
    if (!knows_configuration()) {
        commit_transaction();
        return true;
    }
    log::XidSnapshot now = log::take_snapshot(GetActiveSnapshot(), CurTransactionContext);
    foreach (cell, log_now.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        if (stream == parked_key) {
            read_parked_key(stream);
            continue;
        }
        if (!wants_to_read(stream, commits)) continue;
        if (!log::in_batch(stream->reader)) {
            log::XidSnapshot end = batch_end(stream, now);
            bool is_now = log::same(end, now);
            log::begin_batch(stream->reader, end, is_now ? GetCurrentStatementStartTimestamp() : 0);
            // A look that nobody asked for and that finds nothing leaves the cursors as they are: idle means idle.
            if (stream->seen_commits != commits) sender.unsaved = true;
            if (is_now) stream->seen_commits = commits;
            stream->looked_at = steady_now();
            stream->must_look = !is_now;
        }
        log::Filter filter = filter_of(stream);
        log::Limits limits = limits_of(stream);
        log::Chunk* chunk = log::read_chunk(stream->reader, limits, filter);
        if (chunk != nullptr) {
            sender.unsaved = sender.unshown = true;
            lend(stream, chunk);
        }
        more = more || log::in_batch(stream->reader) || stream->must_look;
    }
    commit_transaction();
    return more;
}

}  // namespace eventbus::sender
