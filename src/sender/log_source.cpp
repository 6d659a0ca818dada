// What it is: the log as a source: what the sender asks of it.
// Who calls it: the sender, through Source.
// Never: knows a route that has another source.
#include "sender/log_source.hpp"

#include "postgres/guest.hpp"
#include "processes/sleep.hpp"
#include "settings/settings.hpp"
#include "source/log/merged_cursors.hpp"

namespace eventbus::sender {

LogState log_now;

namespace {

bool all_are_hungry() {
    ListCell* cell;
    foreach (cell, log_now.streams) {
        const auto* stream = static_cast<const LogStream*>(lfirst(cell));
        if (!call_guest([&] { return sender.dispatcher->hungry(stream->id); })) return false;
    }
    return true;
}

class LogSource final : public Source {
 public:
    LogSource() : Source("log") {}

    bool read() override {
        const bool more = !letters_wait() && skip_ahead();
        return feed_streams() || more;
    }
    void tell_room() override { sender::tell_room(); }
    bool arrange() override {
        arrange_streams();
        return parked_key_to_read() != nullptr && log_now.segments_locked_ms == 0;
    }
    long wait_ms() override { return log_now.segments_locked_ms > 0 ? log_now.segments_locked_ms : -1; }
    bool comes_fast() override {
        static processes::Rush rush;
        return rush.is_on(sender.place->commits) && all_are_hungry();
    }
    bool has_more() override {
        if (log_now.segments_locked_ms > 0) return false;
        const std::uint64_t commits = sender.place->commits;
        ListCell* cell;
        foreach (cell, log_now.streams) {
            const auto* stream = static_cast<const LogStream*>(lfirst(cell));
            if (stream->parked_key != nullptr) continue;  // its route's tells
            if (stream->seen_commits != commits && has_room(stream)) return true;
        }
        return false;
    }
    void woken(std::int64_t now) override {
        ListCell* cell;
        foreach (cell, log_now.streams) {
            auto* stream = static_cast<LogStream*>(lfirst(cell));
            if (ms_have_passed(stream->looked_at, now, settings::safety_poll)) stream->must_look = true;
        }
    }
    bool take_back(const delivery::Report::Finished& finished) override {
        ListCell* cell;
        foreach (cell, log_now.streams) {
            auto* stream = static_cast<LogStream*>(lfirst(cell));
            if (stream->id != finished.stream) continue;
            log_now.lent_bytes -= stream->take_back(finished.chunk);
            return true;
        }
        return false;
    }

    void begin_configuration() override {
        ListCell* cell;
        foreach (cell, log_now.unusable) pfree(static_cast<UnusableRoute*>(lfirst(cell))->topics);
        list_free_deep(log_now.unusable);
        log_now.unusable = NIL;
    }
    void load_place(source::Route* route) override {
        auto* feed = static_cast<LogRoute*>(MemoryContextAllocZero(sender.memory, sizeof(LogRoute)));
        log::load_cursor(route->id, 0, sender.memory, &of_sender(route)->row, &feed->cursor);
        feed->first_generation = feed->cursor.first_generation;
        route->feed = feed;
    }
    void place(std::span<source::Route* const> fresh) override { place_routes(fresh); }
    delivery::StreamId stream_of(const source::Route* route) override { return log_of(route)->stream->id; }
    void load_parked_keys(source::Route* route) override {
        load_log_parked_keys(of_sender(route));
        MemoryContext before = MemoryContextSwitchTo(sender.memory);
        log_now.routes = lappend(log_now.routes, route);
        MemoryContextSwitchTo(before);
        ++log_now.arranged;
    }
    void apply(source::Route* route, bool changed) override {
        if (!changed) return;
        ++log_now.arranged;
        log_of(route)->stream->skip_at = 0;  // what matches is counted again
    }
    void keep_for_unusable(int32 id, const char* topics) override {
        MemoryContext caller = MemoryContextSwitchTo(sender.memory);
        auto* parked = static_cast<UnusableRoute*>(palloc(sizeof(UnusableRoute)));
        *parked = {id, pstrdup(topics), 0};
        log_now.unusable = lappend(log_now.unusable, parked);
        MemoryContextSwitchTo(caller);
    }
    void remove(source::Route* route) override {
        forget_log_parked_keys(of_sender(route));
        if (log_of(route)->from != nullptr) {
            log::free_cursor(log_of(route)->from);
            pfree(log_of(route)->from);
        }
        log_now.routes = list_delete_ptr(log_now.routes, route);
        pfree(route->feed);
        ++log_now.arranged;
    }
    bool park_key(source::Route* route) override { return park_key_of(of_sender(route)); }

    bool can_wait(const source::Route* route) override { return log_of(route)->parked_keys == NIL; }
    void save_place(source::Route* route, const delivery::Position& settled) override {
        LogRoute* feed = log_of(route);
        note_progress(&feed->progress, feed->stream, settled);
        feed->put = cursor_at(feed->stream, settled);
        feed->cursor = log::skipped_to(cursor_with(feed->from, feed->put), feed->first_generation);
        (void)log::save_cursor(&of_sender(route)->row, feed->cursor, nullptr);
    }
    void save_parked_keys(source::Route* route) override {
        save_log_parked_keys(of_sender(route));
        forget_from(&log_of(route)->from, log_of(route)->put);
    }
    void saved(source::Route* route) override { log_parked_keys_saved(of_sender(route)); }

    counters::Answer answer(const source::Route* route, const counters::Wanted& wanted) override {
        return wanted.id.is_of_log() ? answer_for_log(of_sender(route), wanted) : counters::Answer::none;
    }
};

}  // namespace

log::Cursor cursor_at(const LogStream* stream, const delivery::Position& settled) {
    const source::Chunk* chunk;
    uint32 index;
    if (!stream->first_unsettled(settled, &chunk, &index)) return log::place_of(stream->reader);
    return log::cursor_inside(static_cast<const log::Chunk*>(chunk), index);
}

Source* log_source() {
    static LogSource source;
    return &source;
}

}  // namespace eventbus::sender
