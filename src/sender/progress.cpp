// What it is: what a sender writes down: cursors, and its status in shared memory; letters.cpp has the dead letters.
// Who calls it: the sender's loop.
// Never: moves a cursor past an event whose dead letter is not stored.
#include <algorithm>

#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "processes/process.hpp"
#include "sender/sender.hpp"

extern "C" {
#include "utils/lsyscache.h"
}

namespace eventbus::sender {

namespace {

delivery::RouteStatus status_of(delivery::RouteId id) {
    return call_guest([&] { return sender.dispatcher->status(id); });
}

void note_errors(SenderRoute* route, const delivery::RouteStatus& status) {
    cursors::Counters& counters = route->row.counters;
    if (status.last_error_at.number != route->error_seen) {
        route->error_seen = status.last_error_at.number;
        show_text(route->last_error, sizeof route->last_error, status.last_error);
        counters.last_error_at = from_unix_us(status.last_error_at.wall);
    }
    const auto [state, words, retry_at] = route->source->state(route);
    if (strcmp(words, route->source_words) != 0) {
        copy_text(route->source_words, sizeof route->source_words, words);
        const bool any = words[0] != '\0';
        // A route is lost once, and stays so for every sender that comes.
        const bool known = any && source::is_state(state, source::state_lost) && strcmp(words, route->last_error) == 0;
        route->source_words_at = known ? counters.last_error_at : any ? GetCurrentTimestamp() : 0;
        if (any && !known && !source::is_state(state, source::state_starting)) {
            copy_text(route->last_error, sizeof route->last_error, words);
            counters.last_error_at = route->source_words_at;
            sender.unsaved = true;
        }
    }
    counters.last_error = route->last_error[0] != '\0' ? route->last_error : nullptr;
}

void count(SenderRoute* route, const delivery::RouteStatus& status) {
    cursors::Counters& counters = route->row.counters;
    counters.delivered = route->base.delivered + static_cast<int64>(status.delivered);
    counters.dead = route->base.dead + static_cast<int64>(status.dead);
    counters.retries = route->base.retries + static_cast<int64>(status.retries);
    const delivery::Moment last_delivered = std::max(status.last_delivered_at, route->redelivered_at);
    if (last_delivered.number != 0) counters.last_delivered_at = from_unix_us(last_delivered.wall);
    note_errors(route, status);
}

const char* name_of(delivery::RouteState state) {
    switch (state) {
        case delivery::RouteState::active:
            return "active";
        case delivery::RouteState::connecting:
            return "connecting";
        case delivery::RouteState::retrying:
            return "retrying";
        case delivery::RouteState::blocked:
            return "blocked";
        case delivery::RouteState::held:
            return "held";
        case delivery::RouteState::paused:
            return "paused";
    }
    return "unknown";
}

// 0: there is none.
TimestampTz wall_time_of(broker::TimePoint time) {
    if (time == broker::TimePoint{}) return 0;
    const auto wait = std::chrono::duration_cast<std::chrono::microseconds>(time - broker::Clock::now()).count();
    return GetCurrentTimestamp() + std::max<int64>(0, wait);
}

TimestampTz wall_time_of(SteadyTime time) {
    return time == 0 ? 0 : GetCurrentTimestamp() + std::max<int64>(0, time - steady_now());
}

void show(SenderRoute* route, const delivery::RouteStatus& status, std::uint64_t newly_delivered) {
    counters::Route* shared = route->shared;
    if (shared == nullptr) return;
    const cursors::Counters& counters = route->row.counters;
    const Source::State at_source = route->source->state(route);
    const char* state = at_source.name;
    const char* reason = at_source.words;
    char words[sizeof shared->last_error];
    char both[sizeof shared->last_error];
    show_text(words, sizeof words, status.last_error);
    if (state == nullptr && reason[0] != '\0' && words[0] != '\0' && status.state != delivery::RouteState::active &&
        status.state != delivery::RouteState::paused) {
        copy_text(both, sizeof both / 2, words);
        strlcat(both, "; ", sizeof both);
        const Size length = strlen(both);
        copy_text(both + length, sizeof both - length, reason);
        reason = both;
    }
    const TimestampTz next_attempt_at =
        at_source.retry_at != 0 ? wall_time_of(at_source.retry_at) : wall_time_of(status.next_attempt_at);
    TimestampTz oldest = status.oldest_published_at != 0 ? from_unix_us(status.oldest_published_at) : 0;
    if (oldest == 0) oldest = route->source->oldest_to_come(route);
    LatencyCounts latencies = {};
    if (newly_delivered > 0)
        call_guest([&] { sender.dispatcher->take_latencies(static_cast<delivery::RouteId>(route->id), latencies); });

    const TimestampTz now = GetCurrentTimestamp();
    SpinLockAcquire(&shared->mutex);
    if (shared->database != sender.database || shared->route_id != route->id) {
        SpinLockRelease(&shared->mutex);  // the extension is gone, and the place may be another route's
        return;
    }
    counters::note_past_error(shared, now);
    shared->sender_pid = MyProcPid;
    shared->configuration = sender.configuration;
    strlcpy(shared->state, name_of(status.state), sizeof shared->state);
    shared->delivered = counters.delivered;
    shared->dead = counters.dead;
    shared->retries = counters.retries;
    shared->in_flight = status.in_flight;
    shared->oldest = oldest;
    shared->last_delivered_at = counters.last_delivered_at;
    shared->last_error_at = counters.last_error_at;
    shared->next_attempt_at = next_attempt_at;
    strlcpy(shared->last_error, route->last_error, sizeof shared->last_error);
    if (state != nullptr) strlcpy(shared->state, state, sizeof shared->state);
    if (state != nullptr || reason[0] != '\0') {
        copy_text(shared->last_error, sizeof shared->last_error, reason);
        if (route->source_words_at != 0) shared->last_error_at = route->source_words_at;
    }
    counters::count_delivered(&shared->pace, sender.shown_at, newly_delivered, latencies);
    SpinLockRelease(&shared->mutex);
}

// Whether an earlier sender of the broker has left all that it served in trouble. That one told of it, and ended before
// it was over: alter_broker makes another one. It is for this one to say that it is.
class Inherited {
 public:
    // A route's state as it was left.
    void look_at(const counters::Route* shared) {
        if (shared == nullptr || shared->sender_pid == MyProcPid || shared->state[0] == '\0') return;
        bool in_trouble = strcmp(shared->state, "held") == 0 || strcmp(shared->state, "retrying") == 0;
        any_well_ = any_well_ || (!in_trouble && strcmp(shared->state, "paused") != 0);
        any_in_trouble_ = any_in_trouble_ || in_trouble;
    }
    void tell_if_over() {
        if (!any_in_trouble_) return;
        broker::LinkState link = call_guest([&] { return sender.dispatcher->link(); });
        if (link == broker::LinkState::connecting) return;
        if (link == broker::LinkState::up && !any_well_)
            ereport(LOG, (errmsg("pg_eventbus: broker \"%s\" is back: its new sender is connected; delivery resumes",
                                 sender.broker_name)));
        any_in_trouble_ = false;  // where the link is down, that is told, and its end will be
    }

 private:
    bool any_in_trouble_ = false;
    bool any_well_ = false;
};

Inherited inherited;

// A route's own numbers and those of its dead letters on their way again.
delivery::RouteStatus whole_status(SenderRoute* route) {
    delivery::RouteStatus status = status_of(static_cast<delivery::RouteId>(route->id));
    if (route->redelivery != nullptr) {
        delivery::RouteStatus again = status_of(redelivery_route(route->id));
        status.delivered += again.delivered;
        status.dead += again.dead;
        status.retries += again.retries;
        status.in_flight += again.in_flight;
        status.last_delivered_at = std::max(status.last_delivered_at, again.last_delivered_at);
    }
    return status;
}

}  // namespace

delivery::RouteStatus status_of(const SenderRoute* route) {
    return status_of(static_cast<delivery::RouteId>(route->id));
}

bool is_idle(const SenderRoute* route) {
    return call_guest([&] { return sender.dispatcher->is_idle(static_cast<delivery::RouteId>(route->id)); });
}

void note_errors(SenderRoute* route) {
    note_errors(route, whole_status(route));
}

static void note_locked() {
    constexpr int long_ms = 1000;
    SteadyTime now = steady_now();
    if (!sender.cursors_locked) sender.locked_since = now;
    sender.cursors_locked = sender.unsaved = true;
    sender.delivered_since_save = 0;
    sender.saved_at = now;
    if (sender.lock_told || !ms_have_passed(sender.locked_since, now, long_ms)) return;
    sender.lock_told = true;
    ereport(WARNING,
            (errmsg("pg_eventbus: cursors of broker \"%s\" cannot be written: table eventbus.cursor or a row of it is "
                    "locked",
                    sender.broker_name),
             errdetail("Delivery continues, and it is tried again all the time; after a crash, what was delivered "
                       "meanwhile is sent again."),
             errhint("pg_locks shows who has the lock; end that transaction.")));
}

static void note_unlocked() {
    if (sender.lock_told)
        ereport(LOG, (errmsg("pg_eventbus: cursors of broker \"%s\" are written again", sender.broker_name)));
    sender.cursors_locked = sender.lock_told = false;
}

// Among many routes, one that has only seen others' events go by can wait: its row says little that is new.
static bool can_wait(const SenderRoute* route, SteadyTime now) {
    constexpr int few_routes = 16;
    const long quiet_ms = std::max<long>(2000, list_length(sender.routes) * 20L);
    if (list_length(sender.routes) <= few_routes || !route->source->can_wait(route)) return false;
    return route->saved == SavedRoute{route->row.counters} && !ms_have_passed(route->saved_at, now, quiet_ms);
}

namespace {

struct Saving {
    bool all;
    bool locked;     // somebody has the table
    bool gone;       // the extension is
    bool some_wait;  // routes that have little to say
};

// Delivery does not wait for a lock that somebody else has on the table or (drop_route) on a row: it is tried again.
// What it is taken for in memory that something is written changes only once it is: it may be undone.
void save(void* argument) {
    constexpr int patience_ms = 10;
    auto* saving = static_cast<Saving*>(argument);
    saving->gone = !begin_transaction_on_extension("saving cursors");
    if (saving->gone) return;
    saving->locked =
        !ConditionalLockRelationOid(get_relname_relid("cursor", log::relations().schema), RowExclusiveLock);
    if (saving->locked) {
        commit_transaction();
        return;
    }
    processes::wait_for_locks(patience_ms);
    SPI_connect();
    SteadyTime now = steady_now();
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        delivery::RouteStatus status = whole_status(route);
        route->written = false;
        if (route->source->is_lost(route)) continue;
        count(route, status);
        if (!saving->all && can_wait(route, now)) {
            saving->some_wait = true;
            continue;
        }
        route->source->save_place(route, status.settled);
        route->saved = {route->row.counters};
        route->saved_at = now;
        route->written = true;
        route->source->save_parked_keys(route);
    }
    SPI_finish();
    commit_transaction();
}

}  // namespace

void save_cursors(bool all) {
    if (letters_wait()) return;
    Saving saving = {all, false, false, false};
    ErrorData* error = processes::survive(save, &saving);
    if (error != nullptr && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE) ReThrowError(error);
    if (saving.gone) return;
    ListCell* cell;
    if (error != nullptr || saving.locked) {
        foreach (cell, sender.routes) static_cast<SenderRoute*>(lfirst(cell))->saved_at = 0;  // none of them can wait
        if (error != nullptr) FreeErrorData(error);
        note_locked();
        return;
    }
    note_unlocked();
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->written) route->source->saved(route);
    }
    counters::count_cursor_save(sender.place);
    sender.unsaved = saving.some_wait;
    sender.delivered_since_save = 0;
    sender.saved_at = steady_now();
}

void publish_status() {
    sender.unshown = false;
    sender.shown_at = steady_now();
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        delivery::RouteStatus status = whole_status(route);
        std::int64_t before = route->row.counters.delivered;
        count(route, status);
        auto newly_delivered = static_cast<std::uint64_t>(route->row.counters.delivered - before);
        sender.delivered_since_save += newly_delivered;
        inherited.look_at(route->shared);
        show(route, status, newly_delivered);
    }
    inherited.tell_if_over();
}

}  // namespace eventbus::sender
