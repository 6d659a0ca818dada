// What it is: parked keys: their streams, when they read, when they meet their route, their rows among the cursors.
// Who calls it: the sender's loop.
// Never: lets a route's cursor pass what its parked key's row does not know.
#include "postgres/guest.hpp"
#include "sender/log_source.hpp"
#include "source/log/merged_cursors.hpp"

namespace eventbus::sender {

namespace {

LogParkedKey* make_parked_key(SenderRoute* route, delivery::ParkedKeyId number, const log::Cursor& from) {
    auto* parked_key = static_cast<LogParkedKey*>(MemoryContextAllocZero(sender.memory, sizeof(LogParkedKey)));
    init_parked_key(parked_key, route, number);
    parked_key->first_generation = from.first_generation;
    log::Cursor place = from;
    place.creator_xid = 0;
    place.creator_id = 0;
    parked_key->stream = make_stream(log::open_reader(place, &sender.place->log, sender.memory));
    parked_key->from = remember_from(parked_key->stream->reader, from);
    parked_key->stream->parked_key = parked_key;
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    log_of(route)->parked_keys = lappend(log_of(route)->parked_keys, parked_key);
    MemoryContextSwitchTo(before);
    return parked_key;
}

void forget(log::Cursor* from) {
    if (from == nullptr) return;
    log::free_cursor(from);
    pfree(from);
}

void free_parked_key(LogParkedKey* parked_key) {
    parked_key->stream->parked_key = nullptr;
    log::free_snapshot(&parked_key->known);
    log::free_snapshot(&parked_key->behind);
    forget(parked_key->from);
    pfree(parked_key);
}

SavedParkedKey said_by(const log::Cursor& cursor, const cursors::Ids& settled) {
    return {cursor.done.xmax, cursor.done.count, cursor.in_batch,         cursor.batch.xmax, cursor.batch.count,
            cursor.start,     cursor.settled_id, cursor.first_generation, settled.count};
}

}  // namespace

bool park_key_of(SenderRoute* route) {
    if (is_skipping()) return false;  // when that is over
    delivery::RouteStatus status = status_of(route);
    // Its stream begins where the route's is, for what the route has settled since it came there is not to come again.
    LogParkedKey* parked_key = make_parked_key(
        route, next_number(log_of(route)->parked_keys),
        log::skipped_to(cursor_at(log_of(route)->stream, status.settled), log_of(route)->first_generation));
    if (log_of(route)->from != nullptr) {
        forget(parked_key->from);
        parked_key->from = static_cast<log::Cursor*>(MemoryContextAlloc(sender.memory, sizeof(log::Cursor)));
        *parked_key->from = log::copy_cursor(*log_of(route)->from, sender.memory);
    }
    begin_key(parked_key, parked_key->stream->id);
    return true;
}

void load_log_parked_keys(SenderRoute* route) {
    load_keys(route, [](SenderRoute* of, delivery::ParkedKeyId number, delivery::StreamId* stream) -> ParkedKeyRow* {
        cursors::Row row;
        log::Cursor cursor;
        log::load_cursor(of->id, static_cast<int32>(number), CurTransactionContext, &row, &cursor);
        LogParkedKey* parked_key = make_parked_key(of, number, cursor);
        parked_key->row = row;
        parked_key->known = log::take_snapshot(GetActiveSnapshot(), sender.memory);
        *stream = parked_key->stream->id;
        return parked_key;
    });
}

void forget_log_parked_keys(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, log_of(route)->parked_keys) free_parked_key(static_cast<LogParkedKey*>(lfirst(cell)));
    list_free(log_of(route)->parked_keys);
    log_of(route)->parked_keys = NIL;
}

void tell_room() {
    if (is_skipping()) return;
    ListCell* cell;
    foreach (cell, log_now.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        if (stream->is_empty()) continue;
        bool closed = !has_room(stream);
        call_guest([&] { sender.dispatcher->close_stream(stream->id, closed); });
    }
}

void end_log_parked_keys() {
    if (is_skipping()) return;
    ListCell* cell;
    foreach (cell, log_now.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        LogParkedKey* parked_key = stream->parked_key;
        if (parked_key == nullptr || parked_key->ended || !stream->is_empty()) continue;
        log::Reader* routes = log_of(parked_key->of)->stream->reader;
        // After a restart they may meet before the place where the route was earlier, and where some are settled.
        if (!log::same_place(stream->reader, routes) || log::is_later(parked_key->known, log::horizon_of(routes)))
            continue;
        end_key(parked_key);
        parked_key->behind = log::copy_snapshot(log::horizon_of(routes), sender.memory);
    }
}

// The one that was read the longest ago, of those that have nothing left to deliver and whose route is further on.
LogStream* parked_key_to_read() {
    LogStream* found = nullptr;
    ListCell* cell;
    foreach (cell, log_now.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        const LogParkedKey* parked_key = stream->parked_key;
        if (parked_key == nullptr || parked_key->ended || !stream->is_empty() || stream->skip_to != 0) continue;
        if (!log::in_batch(stream->reader) &&
            !log::is_later(log::horizon_of(log_of(parked_key->of)->stream->reader), log::horizon_of(stream->reader)))
            continue;
        if (found == nullptr || stream->looked_at < found->looked_at) found = stream;
    }
    return found;
}

void save_log_parked_keys(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, log_of(route)->parked_keys) {
        auto* parked_key = static_cast<LogParkedKey*>(lfirst(cell));
        parked_key->going = parked_key->ended && !log::is_later(parked_key->behind, log_of(route)->cursor.done);
        parked_key->saving = parked_key->saved;
        if (parked_key->going) {
            if (parked_key->row.exists) cursors::remove(parked_key->row);
            continue;
        }
        delivery::RouteStatus status = status_of(parked_key);
        note_progress(&parked_key->progress, parked_key->stream, status.settled);
        log::Cursor place = cursor_at(parked_key->stream, status.settled);
        parked_key->cursor = log::skipped_to(cursor_with(parked_key->from, place), parked_key->first_generation);
        cursors::ParkedEvents events = events_of(parked_key);
        SavedParkedKey now = said_by(parked_key->cursor, events.settled);
        if (parked_key->row.exists && parked_key->saved == now) continue;
        (void)log::save_cursor(&parked_key->row, parked_key->cursor, &events);
        parked_key->saving = now;
        forget_from(&parked_key->from, place);
    }
}

void log_parked_keys_saved(SenderRoute* route) {
    ListCell* cell;
    foreach (cell, log_of(route)->parked_keys) {
        auto* parked_key = static_cast<LogParkedKey*>(lfirst(cell));
        parked_key->saved = parked_key->saving;
        if (!parked_key->going) continue;
        remove_key(parked_key);
        log_of(route)->parked_keys = foreach_delete_current(log_of(route)->parked_keys, cell);
        free_parked_key(parked_key);
    }
}

}  // namespace eventbus::sender
