// What it is: which route reads on which stream: placed when loaded, split where one fills it, joined where they meet.
// Who calls it: the sender's loop.
// Never: lets routes wait for long behind another one's backlog.
#include <algorithm>

#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "sender/log_source.hpp"
#include "settings/settings.hpp"
#include "source/log/merged_cursors.hpp"

namespace eventbus::sender {

namespace {

constexpr int patience_ms = 500;  // with a stream that moves, for routes that it has nothing for
constexpr int most_groups = 16;   // of routes that leave a stream at once for different places

void move(SenderRoute* route, LogStream* to) {
    call_guest([&] { sender.dispatcher->move_route(static_cast<delivery::RouteId>(route->id), to->id); });
    log_of(route)->stream = to;
    ++log_now.arranged;
    sender.unsaved = true;
}

void close_unused_streams() {
    ListCell* cell;
    foreach (cell, log_now.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        bool used = !stream->is_empty() || stream->parked_key != nullptr;
        ListCell* inner;
        foreach (inner, log_now.routes)
            if (log_of(static_cast<SenderRoute*>(lfirst(inner)))->stream == stream) used = true;
        if (used) continue;
        free_takers(stream);
        log::close_reader(stream->reader);
        log_now.streams = foreach_delete_current(log_now.streams, cell);
        pfree(stream);
    }
}

// The reader has not come to the place where the route stood when it came to the stream.
bool is_ahead(const SenderRoute* route) {
    if (log_of(route)->from == nullptr) return false;
    const log::Cursor& place = log::place_of(log_of(route)->stream->reader);
    return log::covers(*log_of(route)->from, place) && !log::covers(place, *log_of(route)->from);
}

void place_at(SenderRoute* route, LogStream* stream, const log::Cursor& cursor) {
    log_of(route)->from = remember_from(stream->reader, cursor);
    log_of(route)->stream = stream;
    ++log_now.arranged;
}

// A stream for routes that stand at these places.
LogStream* open_together(const log::Cursor* const* cursors, int count) {
    log::Cursor place = log::meet(cursors, count, CurrentMemoryContext);
    LogStream* stream = make_stream(log::open_reader(place, &sender.place->log, sender.memory));
    log::free_cursor(&place);
    return stream;
}

// One that has not been read beyond the cursor, and that nothing blocks.
LogStream* stream_behind(const log::Cursor& cursor) {
    ListCell* cell;
    foreach (cell, log_now.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        if (stream->parked_key != nullptr || stream->skip_to != 0) continue;
        const log::Cursor& place = log::place_of(stream->reader);
        // What the stream has left out, the route would miss, and nobody would have counted it.
        if (place.first_generation > cursor.first_generation || !log::covers(cursor, place)) continue;
        if (call_guest(
                [&] { return sender.dispatcher->hungry(stream->id) && !sender.dispatcher->stands_still(stream->id); }))
            return stream;
    }
    return nullptr;
}

// Notes which of the stream's routes have delivered all they were lent; returns whether some have not.
bool find_idle(const LogStream* stream) {
    return call_guest([&] {
        bool busy = false;
        for (int i = 0; i < list_length(log_now.routes); ++i) {
            auto* route = static_cast<SenderRoute*>(list_nth(log_now.routes, i));
            if (log_of(route)->stream != stream) continue;
            log_of(route)->idle = sender.dispatcher->is_idle(static_cast<delivery::RouteId>(route->id));
            busy = busy || !log_of(route)->idle;
        }
        return busy;
    });
}

bool stand_together(const log::Cursor& a, const log::Cursor& b) {
    return log::same(a.done, b.done) && a.in_batch == b.in_batch && (!a.in_batch || log::same(a.batch, b.batch));
}

// Routes that the reader has not come to go where they stand, those that stand together to a stream of their own.
void separate_ahead(LogStream* stream) {
    List* left = NIL;
    ListCell* cell;
    foreach (cell, log_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (log_of(route)->stream == stream && log_of(route)->idle && is_ahead(route)) left = lappend(left, route);
    }
    auto** cursors = static_cast<const log::Cursor**>(palloc(sizeof(void*) * (list_length(left) + 1)));
    for (int groups = 1; left != NIL; ++groups) {
        const log::Cursor* first = log_of(static_cast<SenderRoute*>(linitial(left)))->from;
        List* group = NIL;
        foreach (cell, left) {
            auto* route = static_cast<SenderRoute*>(lfirst(cell));
            if (groups < most_groups && !stand_together(*first, *log_of(route)->from)) continue;
            cursors[list_length(group)] = log_of(route)->from;
            group = lappend(group, route);
            left = foreach_delete_current(left, cell);
        }
        LogStream* fresh = open_together(cursors, list_length(group));
        foreach (cell, group) {
            auto* route = static_cast<SenderRoute*>(lfirst(cell));
            move(route, fresh);
            log::Cursor* from = log_of(route)->from;
            log_of(route)->from = remember_from(fresh->reader, *from);
            log::free_cursor(from);
            pfree(from);
        }
        list_free(group);
    }
    pfree(cursors);
}

bool waited_long(SteadyTime* since, bool waits) {
    if (!waits) {
        *since = 0;
        return false;
    }
    SteadyTime now = steady_now();
    if (*since == 0) *since = now;
    return ms_have_passed(*since, now, patience_ms);
}

bool any_ahead(const LogStream* stream) {
    for (int i = 0; i < stream->taker_count && stream->arranged == log_now.arranged; ++i)
        if (is_ahead(stream->takers[i])) return true;
    return false;
}

void look_after(LogStream* stream) {
    bool full = !stream->is_empty() && !has_room(stream);
    bool long_full = waited_long(&stream->full_since, full);
    bool stands_still = full && call_guest([&] { return sender.dispatcher->stands_still(stream->id); });
    if (full && (long_full || stands_still)) {
        split(stream);
    } else if (waited_long(&stream->ahead_since, stream->come_with > 0 && any_ahead(stream))) {
        (void)find_idle(stream);
        separate_ahead(stream);
    }
}

// Joins what stands at the same place: reading it twice would be a waste.
void join(LogStream* stream) {
    if (stream->skip_to != 0) return;
    ListCell* cell;
    foreach (cell, log_now.streams) {
        auto* other = static_cast<LogStream*>(lfirst(cell));
        if (other == stream) return;  // only with earlier ones
        // What was lent to the other may be stuck there, and would soon fill it up for all.
        if (!other->is_empty() || other->skip_to != 0 || other->parked_key != nullptr) continue;
        if (!log::same_place(other->reader, stream->reader)) continue;
        (void)find_idle(stream);
        ListCell* inner;
        foreach (inner, log_now.routes) {
            auto* route = static_cast<SenderRoute*>(lfirst(inner));
            if (log_of(route)->stream == stream && log_of(route)->idle) move(route, other);
        }
        return;
    }
}

}  // namespace

LogStream* make_stream(log::Reader* reader) {
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    auto* stream = static_cast<LogStream*>(palloc0(sizeof(LogStream)));
    stream->begin(++sender.next_stream);
    stream->reader = reader;
    stream->must_look = true;
    log_now.streams = lappend(log_now.streams, stream);
    MemoryContextSwitchTo(before);
    return stream;
}

log::Cursor* remember_from(const log::Reader* reader, const log::Cursor& cursor) {
    const log::Cursor& place = log::place_of(reader);
    if (place.first_generation >= cursor.first_generation && log::covers(place, cursor) &&
        log::finished(place.done, cursor.creator_xid))
        return nullptr;
    auto* from = static_cast<log::Cursor*>(MemoryContextAlloc(sender.memory, sizeof(log::Cursor)));
    *from = log::copy_cursor(cursor, sender.memory);
    return from;
}

log::Cursor cursor_with(const log::Cursor* from, const log::Cursor& place) {
    return from != nullptr ? log::behind_both(*from, place) : place;
}

void forget_from(log::Cursor** from, const log::Cursor& place) {
    if (*from == nullptr || !log::covers(place, **from) || !log::finished(place.done, (*from)->creator_xid)) return;
    int64 oldest = log::oldest_generation(log::relations());
    if ((*from)->first_generation > std::max(place.first_generation, oldest)) return;
    log::free_cursor(*from);
    pfree(*from);
    *from = nullptr;
    ++log_now.arranged;
}

void place_routes(std::span<source::Route* const> fresh) {
    auto** cursors = static_cast<const log::Cursor**>(palloc(sizeof(void*) * (fresh.size() + 1)));
    List* others = NIL;
    for (source::Route* one : fresh) {
        SenderRoute* route = of_sender(one);
        if (LogStream* stream = stream_behind(log_of(route)->cursor)) {
            place_at(route, stream, log_of(route)->cursor);
        } else {
            cursors[list_length(others)] = &log_of(route)->cursor;
            others = lappend(others, route);
        }
    }
    if (others == NIL) return;
    LogStream* stream = open_together(cursors, list_length(others));
    ListCell* cell;
    foreach (cell, others) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        place_at(route, stream, log_of(route)->cursor);
    }
}

// A stream is full because one of its routes is slow, or it is about to leave events out.
void split(LogStream* full) {
    if (!find_idle(full)) return;
    separate_ahead(full);
    LogStream* fresh = nullptr;
    ListCell* cell;
    foreach (cell, log_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (log_of(route)->stream != full || !log_of(route)->idle) continue;
        if (fresh == nullptr) {
            fresh = make_stream(log::clone_reader(full->reader));
            fresh->seen_commits = full->seen_commits;
            fresh->must_look = full->must_look;
        }
        move(route, fresh);
    }
    full->full_since = 0;
}

bool is_skipping() {
    ListCell* cell;
    foreach (cell, log_now.streams)
        if (static_cast<LogStream*>(lfirst(cell))->skip_to != 0) return true;
    return false;
}

void arrange_streams() {
    end_log_parked_keys();
    ListCell* cell;
    foreach (cell, log_now.streams) {
        auto* stream = static_cast<LogStream*>(lfirst(cell));
        if (stream->skip_to == 0 && stream->parked_key == nullptr) look_after(stream);
    }
    if (list_length(log_now.streams) < 2) return;
    close_unused_streams();  // what a parked key has left behind is nobody's to join
    foreach (cell, log_now.streams) join(static_cast<LogStream*>(lfirst(cell)));
}

}  // namespace eventbus::sender
