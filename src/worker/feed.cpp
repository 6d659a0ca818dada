// What it is: feeding the dispatcher: chunks of the log in, finished chunks out, streams split and joined.
// Who calls it: the sender's loop.
// Never: keeps a transaction open while events are on their way.
#include <algorithm>

#include "catalog/dead_letters.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "settings/settings.hpp"
#include "worker/sender.hpp"

namespace eventbus::worker {

namespace {

constexpr Size chunk_bytes = 2 * 1024 * 1024;  // said in eventbus.batch_events' description
constexpr int redelivered_at_a_time = 100;

// Whether some route of the stream, or its detour, takes the event. One that nobody takes is not even converted.
bool wanted(void* context, const Event& event) {
    auto* stream = static_cast<LogStream*>(context);
    bool found = event.topic.empty();
    GuestError error;
    catch_guest(error, [&] {
        if (const SenderDetour* detour = stream->detour)
            found = detour->takes->takes(event) && detour->route->filter->matches(event.topic);
        ListCell* cell;
        foreach (cell, sender.routes) {
            auto* route = static_cast<SenderRoute*>(lfirst(cell));
            if (route->stream == stream && route->filter->matches(event.topic)) found = true;
        }
    });
    return found || error.kind != GuestError::Kind::none;
}

// True if the chunk is not to be offered: it comes again, and the driver of the next sender knows that its events may
// have been sent already.
bool is_repetition(const LogStream* stream) {
    if (!log::must_begin_again(stream->reader)) return false;
    begin_again();
    return true;
}

void lend(LogStream* stream, log::Chunk* chunk) {
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    auto* lent = static_cast<Lent*>(palloc(sizeof(Lent)));
    *lent = {stream->next_chunk++, chunk};
    stream->lent = lappend(stream->lent, lent);
    MemoryContextSwitchTo(before);
    if (is_repetition(stream)) return;  // it stays what keeps the cursors where they are
    std::int64_t committed_after = chunk->committed_after != 0 ? to_unix_us(chunk->committed_after) : 0;
    call_guest([&] {
        sender.dispatcher->lend(stream->id, {lent->id, {chunk->events, chunk->count}, committed_after});
    });
}

bool wants_to_read(const LogStream* stream, std::uint64_t commits) {
    if (stream->detour != nullptr || stream->skip_to != 0) return false;
    if (!log::in_batch(stream->reader) && !stream->must_look && stream->seen_commits == commits) return false;
    return call_guest([&] { return sender.dispatcher->hungry(stream->id); });
}

// Where somebody has locked a segment (VACUUM FULL, LOCK TABLE) nothing is read, but all else goes on.
bool segments_are_free() {
    constexpr unsigned most_doublings = 6;
    sender.segments_locked_ms = 1L << std::min(sender.times_locked, most_doublings);
    const log::Relations& log = log::relations();
    // All that is read: who holds one of these locks waits for none, or DROP EXTENSION would have to be the one to
    // yield.
    for (Oid relation : {log.generation, log.segments[0], log.segments[1], log.segments[2], log.segments[3]}) {
        if (ConditionalLockRelationOid(relation, AccessShareLock)) continue;
        ++sender.times_locked;
        return false;
    }
    sender.segments_locked_ms = 0;
    sender.times_locked = 0;
    return true;
}

void move(SenderRoute* route, LogStream* to) {
    call_guest([&] { sender.dispatcher->move_route(static_cast<delivery::RouteId>(route->id), to->id); });
    route->stream = to;
    sender.unsaved = true;
}

void close_unused_streams() {
    ListCell* cell;
    foreach (cell, sender.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        bool used = stream->lent != NIL || stream->detour != nullptr;
        ListCell* inner;
        foreach (inner, sender.routes)
            if (static_cast<SenderRoute*>(lfirst(inner))->stream == stream) used = true;
        if (used) continue;
        log::close_reader(stream->reader);
        sender.streams = foreach_delete_current(sender.streams, cell);
        pfree(stream);
    }
}

// A little at a time: most of it is other events, and routes have the right of way.
void read_detour(LogStream* stream) {
    constexpr uint32 events = 250;
    constexpr Size bytes = 256 * 1024;
    if (!log::in_batch(stream->reader))
        log::begin_batch(stream->reader, log::horizon_of(stream->detour->route->stream->reader), 0);
    log::Chunk* chunk = log::read_chunk(stream->reader, {events, bytes}, {wanted, stream});
    stream->looked_at = steady_now();
    sender.unsaved = true;
    if (chunk != nullptr) lend(stream, chunk);
}

// Joins what stands at the same place: reading it twice would be a waste.
void join(LogStream* stream) {
    if (stream->skip_to != 0) return;
    ListCell* cell;
    foreach (cell, sender.streams) {
        auto* other = static_cast<LogStream*>(lfirst(cell));
        if (other == stream) return;  // only with earlier ones
        // What was lent to the other may be stuck there, and would soon fill it up for all.
        if (other->lent != NIL || other->skip_to != 0 || other->detour != nullptr) continue;
        if (!log::same_place(other->reader, stream->reader)) continue;
        ListCell* inner;
        foreach (inner, sender.routes) {
            auto* route = static_cast<SenderRoute*>(lfirst(inner));
            if (route->stream == stream && is_idle(route)) move(route, other);
        }
        return;
    }
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

bool is_idle(const SenderRoute* route) {
    return call_guest([&] { return sender.dispatcher->status(static_cast<delivery::RouteId>(route->id)).idle; });
}

// A stream is full because one of its routes is slow, or it is about to leave events out.
void split(LogStream* full) {
    LogStream* fresh = nullptr;
    bool someone_stays = false;
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->stream == full && !is_idle(route)) someone_stays = true;
    }
    if (!someone_stays) return;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->stream != full || !is_idle(route)) continue;
        if (fresh == nullptr) {
            fresh = make_stream(log::clone_reader(full->reader));
            fresh->seen_commits = full->seen_commits;
            fresh->must_look = full->must_look;
        }
        move(route, fresh);
    }
}

LogStream* make_stream(log::Reader* reader) {
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    auto* stream = static_cast<LogStream*>(palloc0(sizeof(LogStream)));
    stream->id = ++sender.next_stream;
    stream->reader = reader;
    stream->next_chunk = 1;
    stream->must_look = true;
    sender.streams = lappend(sender.streams, stream);
    MemoryContextSwitchTo(before);
    return stream;
}

bool feed_streams() {
    std::uint64_t commits = sender.place->commits;  // before the snapshot: what is counted, it sees
    LogStream* detour = detour_to_read();
    bool any = detour != nullptr;
    ListCell* cell;
    foreach (cell, sender.streams) any = any || wants_to_read(static_cast<LogStream*>(lfirst(cell)), commits);
    if (!any) return false;

    bool more = false;
    begin_transaction(nullptr);
    if (!segments_are_free()) {
        commit_transaction();
        return false;
    }
    // With the locks held: whoever stores the rows anew (ALTER TABLE) makes them rows of a transaction of their own,
    // which an older snapshot does not see.
    PopActiveSnapshot();
    PushActiveSnapshot(GetTransactionSnapshot());
    log::XidSnapshot now = log::take_snapshot(GetActiveSnapshot(), CurTransactionContext);
    foreach (cell, sender.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        if (stream == detour) {
            read_detour(stream);
            continue;
        }
        if (!wants_to_read(stream, commits)) continue;
        if (!log::in_batch(stream->reader)) {
            log::begin_batch(stream->reader, now, GetCurrentStatementStartTimestamp());
            // A look that nobody asked for and that finds nothing leaves the cursors as they are: idle means idle.
            if (stream->seen_commits != commits) sender.unsaved = true;
            stream->seen_commits = commits;
            stream->looked_at = steady_now();
            stream->must_look = false;
        }
        log::Limits limits{static_cast<uint32>(settings::batch_events), chunk_bytes};
        log::Chunk* chunk = log::read_chunk(stream->reader, limits, {wanted, stream});
        if (chunk != nullptr) {
            sender.unsaved = sender.unshown = true;
            lend(stream, chunk);
        }
        more = more || log::in_batch(stream->reader);
    }
    commit_transaction();
    return more;
}

void give_back(const delivery::Report& report) {
    if (report.finished.empty()) return;
    call_guest([&] { sender.dispatcher->release(report.finished); });
    for (const delivery::Report::Finished& finished : report.finished) {
        give_back_wal(finished);
        ListCell* cell;
        foreach (cell, sender.streams) {
            auto* stream = static_cast<LogStream*>(lfirst(cell));
            if (stream->id != finished.stream) continue;
            ListCell* inner;
            foreach (inner, stream->lent) {
                auto* lent = static_cast<Lent*>(lfirst(inner));
                if (lent->id != finished.chunk) continue;
                stream->lent = foreach_delete_current(stream->lent, inner);
                log::free_chunk(lent->chunk);
                pfree(lent);
                break;
            }
        }
        foreach (cell, sender.routes) {
            auto* route = static_cast<SenderRoute*>(lfirst(cell));
            if (route->redelivery != nullptr && route->redelivery->stream == finished.stream) feed_redelivery(route);
        }
    }
}

void arrange_streams() {
    arrange_detours();
    ListCell* cell;
    foreach (cell, sender.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        if (stream->skip_to == 0 && stream->lent != NIL &&
            !call_guest([&] { return sender.dispatcher->hungry(stream->id); }))
            split(stream);
    }
    if (list_length(sender.streams) < 2) return;
    close_unused_streams();  // what a detour has left behind is nobody's to join
    foreach (cell, sender.streams) join(static_cast<LogStream*>(lfirst(cell)));
}

// Takes the next dead letters that are to be sent again; the ones before have arrived, or have been stored anew.
void feed_redelivery(SenderRoute* route) {
    Redelivery* redelivery = route->redelivery;
    if (!begin_transaction_on_extension("sending dead letters again")) return;
    SPI_connect();
    for (int i = 0; i < redelivery->count; ++i) catalog::forget_dead_letter(route->id, redelivery->events[i].id);
    bool any_gone = redelivery->count > 0;
    if (redelivery->memory != nullptr) MemoryContextDelete(redelivery->memory);
    redelivery->memory = AllocSetContextCreate(sender.memory, "pg_eventbus redelivery", ALLOCSET_DEFAULT_SIZES);
    redelivery->count = catalog::take_requeued(route->id, redelivery->last_id, redelivered_at_a_time,
                                               &redelivery->events, redelivery->memory);
    SPI_finish();
    commit_transaction();
    if (any_gone) status::stir_waiters(sender.database, 0);

    if (redelivery->count == 0) {
        delivery::RouteStatus counted =
            call_guest([&] { return sender.dispatcher->status(redelivery_route(route->id)); });
        route->base.delivered += static_cast<int64>(counted.delivered);
        route->base.dead += static_cast<int64>(counted.dead);
        route->base.retries += static_cast<int64>(counted.retries);
        route->redelivered_at = std::max(route->redelivered_at, counted.last_delivered_at);
        call_guest([&] { sender.dispatcher->remove_route(redelivery_route(route->id)); });
        MemoryContextDelete(redelivery->memory);
        pfree(redelivery);
        route->redelivery = nullptr;
        return;
    }
    redelivery->last_id = redelivery->events[redelivery->count - 1].id;
    call_guest([&] {
        sender.dispatcher->lend(
            redelivery->stream,
            {redelivery->next_chunk++, {redelivery->events, static_cast<std::size_t>(redelivery->count)}, 0});
    });
}

}  // namespace eventbus::worker
