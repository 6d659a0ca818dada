// What it is: the WAL as a source: what the sender asks of it.
// Who calls it: the sender, through Source.
// Never: knows a route that has another source.
#include "postgres/guest.hpp"
#include "processes/sleep.hpp"
#include "sender/wal_parked_keys.hpp"
#include "sender/wal_state.hpp"

namespace eventbus::sender {

namespace {

class WalSource final : public Source {
 public:
    WalSource() : Source("wal") {}

    bool read() override { return feed_wal(); }
    void confirm() override { confirm_wal(); }
    long wait_ms() override { return wal_wait(); }
    bool comes_fast() override {
        static processes::Rush rush;
        return rush.is_on(events_from_wal());
    }
    bool has_more() override { return wal_has_more(); }
    bool take_back(const delivery::Report::Finished& finished) override { return give_back_wal(finished); }

    void begin_configuration() override { wal_now.keeps_all = false; }
    void load_place(source::Route* route) override { make_wal_feed(of_sender(route)); }
    delivery::StreamId stream_of(const source::Route* route) override { return wal_of(route)->id; }
    void load_parked_keys(source::Route* route) override {
        load_wal_parked_keys(of_sender(route));
        MemoryContext before = MemoryContextSwitchTo(sender.memory);
        wal_now.routes = lappend(wal_now.routes, route);
        MemoryContextSwitchTo(before);
    }
    void apply(source::Route* route, bool changed) override { apply_to_wal_route(of_sender(route), changed); }
    void retry(source::Route*) override { wal_now.retry_at = 0; }
    void keep_for_unusable(int32, const char*) override { wal_now.keeps_all = true; }
    void remove(source::Route* route) override {
        free_wal_feed(of_sender(route));
        wal_now.routes = list_delete_ptr(wal_now.routes, route);
    }
    bool park_key(source::Route* route) override { return park_wal_key(of_sender(route)); }

    bool is_lost(const source::Route* route) override { return sender::is_lost(of_sender(route)); }
    void save_place(source::Route* route, const delivery::Position& settled) override {
        put_wal_place(of_sender(route), settled);
        (void)wal::save_place(&of_sender(route)->row, wal_of(route)->place, nullptr);
    }
    void save_parked_keys(source::Route* route) override { save_wal_parked_keys(of_sender(route)); }
    void saved(source::Route* route) override { wal_cursor_saved(of_sender(route)); }

    State state(const source::Route* route) override;
    std::int64_t oldest_to_come(const source::Route* route) override {
        if (sender::is_lost(of_sender(route)) || wal_of(route)->file != nullptr || wal_of(route)->behind)
            return counters::oldest_unknown;
        // What commits before the slot is made is not the route's.
        if (wal_now.at_end || wal_now.makes_slot) return 0;
        return wal_now.handed_until != 0 ? wal_now.handed_until : counters::oldest_unknown;
    }
    const char* standstill() override;
    // What is lost is nobody's to deliver any more.
    counters::Answer answer(const source::Route* route, const counters::Wanted& wanted) override {
        if (wanted.id.is_of_log()) return counters::Answer::none;
        if (sender::is_lost(of_sender(route))) return counters::Answer::left_out;
        return settled_by_now(of_sender(route)).lsn >= wanted.id.lsn ? counters::Answer::settled
                                                                     : counters::Answer::none;
    }
};

Source::State WalSource::state(const source::Route* route) {
    if (sender::is_lost(of_sender(route))) {
        const wal::Place& place = wal_of(route)->place;
        static char lost[256];
        snprintf(lost, sizeof lost, "replication slot %s is gone: what was committed from %s on is not delivered",
                 place.slot, place_text(place));
        return {source::state_lost, lost};
    }
    const WalFeed* feed = wal_of(route);
    const char* of_files =
        feed->trouble.words[0] != '\0' ? feed->trouble.words : file_trouble_of_parked_keys(of_sender(route));
    if (of_sender(route)->paused && feed->begun)
        return {nullptr, of_files};  // what commits before it has begun is not its
    if (wal_now.trouble[0] != '\0') return {"failing", wal_now.trouble, wal_now.retry_at};
    if (!feed->begun) return {source::state_starting, wal_now.words};
    const bool fails = feed->behind && status_of(of_sender(route)).state == delivery::RouteState::active;
    return {fails ? "failing" : nullptr, of_files};
}

const char* WalSource::standstill() {
    static char text[sizeof wal_now.trouble + 64];  // no longer than activity.cpp remembers
    int lost = 0;
    State found;
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        const auto* route = static_cast<const SenderRoute*>(lfirst(cell));
        if (sender::is_lost(route))
            ++lost;
        else if (found.name == nullptr)
            found = state(route);
    }
    if (source::is_state(found.name, source::state_starting))
        snprintf(text, sizeof text, "its replication slot is being made%s%s", found.words[0] != '\0' ? ": " : "",
                 found.words);
    else if (found.name != nullptr && wal_now.trouble[0] != '\0')
        snprintf(text, sizeof text, "the WAL cannot be read: %s", found.words);
    else if (found.name != nullptr)
        snprintf(text, sizeof text, "%s", found.words);
    else if (lost > 0)
        snprintf(text, sizeof text, "%d of its routes from the WAL lost their replication slot", lost);
    else
        return "";
    return text;
}

}  // namespace

Source* wal_source() {
    static WalSource source;
    return &source;
}

}  // namespace eventbus::sender
