// What it is: the sender, one a broker: reads the log, hands events to delivery, keeps cursors, sleeps.
// Who calls it: the keeper.
// Never: blocks on a broker; has a transaction open while it waits; ends with a cursor ahead of an acknowledgement.
#include "sender/sender.hpp"

#include <algorithm>

#include "broker/loader.hpp"
#include "catalog/arguments.hpp"
#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "processes/process.hpp"
#include "processes/sleep.hpp"
#include "sender/unusable.hpp"
#include "settings/settings.hpp"
#include "source/round.hpp"

extern "C" {
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
}

namespace eventbus::sender {

Sender sender;

namespace {

constexpr std::uint64_t save_after_events = 10000;
constexpr long save_after_ms = 100;
constexpr long show_after_ms = 5;
constexpr long save_quietly_after_ms = 2000;  // when only others' events have gone by

const char* in_utf8(const char* text) {
    std::string_view made = to_utf8_or_marks(text);
    auto* copy = static_cast<char*>(MemoryContextAllocZero(sender.memory, made.size() + 1));
    memcpy(copy, made.data(), made.size());
    return copy;
}

// The broker's row in UTF-8.
struct {
    const char* name;
    const char* url;
    const char* options;
} guest_broker;

BrokerSettings read_broker() {
    return broker::read_broker(guest_broker.name, guest_broker.url, guest_broker.options, catalog::module_directory());
}

bool can_be_used() {
    GuestError error;
    catch_guest(error, [] { read_broker(); });
    return error.kind == GuestError::Kind::none;
}

void make_dispatcher() {
    StartTransactionCommand();
    const char* source = in_utf8(settings::source_name());
    guest_broker = {in_utf8(sender.broker_name), in_utf8(sender.broker_url), in_utf8(sender.broker_options)};
    CommitTransactionCommand();
    GuestError error;
    catch_guest(error, [] { read_broker(); });
    if (error.kind == GuestError::Kind::out_of_memory) report_guest_error(error);
    if (error.kind != GuestError::Kind::none) wait_until_usable(error, can_be_used);
    call_guest([&] {
        BrokerSettings broker = read_broker();
        sender.module = broker::load_module(broker.url.scheme, catalog::module_directory());
        broker.source = source;
        std::string shown = "broker \"" + broker.name + "\" (" + redact_url(guest_broker.url) + ")";
        auto connect = [broker](unsigned attempt, broker::TimePoint now) {
            BrokerSettings with_password = broker;
            load_password(with_password);
            return sender.module->connect(with_password, attempt, now);
        };
        auto wall = [] { return to_unix_us(GetCurrentTimestamp()); };
        sender.dispatcher = new delivery::Dispatcher(shown, connect, wall, {}, static_cast<std::uint32_t>(MyProcPid));
        sender.report = new delivery::Report();
    });
}

void log_notices() {
    for (const delivery::Notice& notice : sender.report->notices) {
        char* text = shown_text(notice.text);
        char* hint = shown_text(notice.hint);
        ereport(notice.level == delivery::Notice::Level::warning ? WARNING : LOG,
                (errmsg("pg_eventbus: %s", text), hint[0] != '\0' ? errhint("%s", hint) : 0));
        pfree(text);
        pfree(hint);
    }
}

void take_report() {
    if (!letters_wait()) {
        call_guest([&] {
            sender.report->clear();
            sender.dispatcher->report(*sender.report);
        });
        log_notices();
    }
    if (!store_dead_letters()) return;
    if (sender.report->moved) sender.unsaved = true;
    static broker::LinkState shown = broker::LinkState::down;
    static broker::TimePoint shown_attempt;
    broker::LinkState link = call_guest([&] { return sender.dispatcher->link(); });
    // An attempt that fails at once leaves the link as it was, but for when the next one is.
    broker::TimePoint attempt;
    if (link == broker::LinkState::down) attempt = call_guest([&] { return sender.dispatcher->wake_at(); });
    if (sender.report->moved || !sender.report->notices.empty() || link != shown || attempt != shown_attempt)
        sender.unshown = true;
    shown = link;
    shown_attempt = attempt;
    give_back(*sender.report);
}

// Returns in how many milliseconds the cursors are due; negative: they are not.
long save_if_due() {
    if (!sender.unsaved || letters_wait()) return -1;
    long since = ms_between(sender.saved_at, steady_now());
    bool soon = sender.delivered_since_save > 0 || sender.place->log_space.tight;
    long wait = soon ? save_after_ms : save_quietly_after_ms;
    if (sender.delivered_since_save < save_after_events && since < wait) return wait - since;
    if (sender.unshown) publish_status();  // it counts what was delivered since it was last published
    save_cursors(sender.place->keeper_waits);
    return sender.unsaved ? save_quietly_after_ms : -1;
}

// The same for the status: with many routes it is too much for every round.
long show_if_due() {
    if (!sender.unshown) return -1;
    long since = ms_between(sender.shown_at, steady_now());
    long wait = std::max<long>(show_after_ms, list_length(sender.routes) / 10);
    if (since < wait) return wait - since;
    publish_status();
    return -1;
}

// How long there is nothing to do, in milliseconds.
long idle_time(long save_due, long show_due, long again_due) {
    long most = settings::safety_poll;
    for (long due : {save_due, show_due, letters_due(), again_due})
        if (due >= 0) most = std::min(most, due);
    for (Source* source : sources())
        if (const long due = source->wait_ms(); due >= 0) most = std::min(most, due);
    broker::TimePoint wake = call_guest([&] { return sender.dispatcher->wake_at(); });
    if (wake != broker::TimePoint::max()) {
        broker::TimePoint now = broker::Clock::now();
        if (wake <= now) return 0;
        auto until = std::chrono::ceil<std::chrono::milliseconds>(wake - now).count();
        most = std::min<long>(most, until);
    }
    return most;
}

bool is_connected() {
    return call_guest([&] { return sender.dispatcher->link() == broker::LinkState::up; });
}

bool events_come_fast() {
    bool fast = false;
    for (Source* source : sources()) fast = source->comes_fast() || fast;
    return fast && is_connected();
}

broker::Ready sleep_until_work(long milliseconds) {
    if (milliseconds > 0 && events_come_fast()) {
        (void)show_activity(true);
        processes::linger(processes::linger_us);
        return {true, true};  // answers that have come meanwhile are taken along
    }
    const broker::Interest interest = call_guest([&] { return sender.dispatcher->interest(); });
    // Say that we sleep, then look once more: a publisher that commits now either sees us asleep, or was counted
    // before we looked.
    counters::fall_asleep(sender.place, sender.worker);
    for (Source* source : sources())
        if (source->has_more()) milliseconds = 0;
    if (!knows_configuration()) milliseconds = 0;
    const char* wait_event = show_activity(milliseconds == 0);
    processes::Readiness ready =
        processes::sleep_on({interest.fd, interest.number, interest.read, interest.write}, milliseconds, wait_event);
    counters::wake_up(sender.place, sender.worker);
    const SteadyTime now = steady_now();
    for (Source* source : sources()) source->woken(now);
    return {ready.read, ready.write};
}

// eventbus.source goes into every driver at its making; another one takes another sender.
void reload_settings() {
    static char* source = nullptr;
    if (source == nullptr) source = MemoryContextStrdup(sender.memory, settings::source);
    processes::reload_if_requested();
    if (strcmp(source, settings::source) != 0) leave();  // the keeper starts the next one
}

// The keeper may have found nobody here, and be about to move our cursors. One that has died has undone it.
void wait_for_skipper() {
    for (int pid; (pid = sender.place->log_space.skipper) != 0 && pid == counters::pid_of_keeper(sender.database);) {
        if (processes::stop_requested()) proc_exit(0);
        CHECK_FOR_INTERRUPTS();
        processes::linger(processes::linger_us);
    }
}

struct Round {
    broker::Ready ready;
    long show_due = -1;
    long save_due = -1;
    long again_due = -1;

    void deliver() {
        call_guest([&] { sender.dispatcher->drive(ready, broker::Clock::now()); });
        take_report();
        if (!letters_wait()) answer_waiters();
    }
    source::Route* stuck() {
        const std::optional<delivery::RouteId> route = call_guest([] { return sender.dispatcher->stuck(); });
        return route ? find_route(static_cast<int32>(*route)) : nullptr;
    }
    void write() {
        show_due = show_if_due();
        save_due = save_if_due();
        again_due = redeliveries_due();
    }
};

void run() {
    Round round;
    sender.configuration = sender.place->configuration - 1;
    for (;;) {
        if (processes::stop_requested() || sender.begin_again) leave();
        CHECK_FOR_INTERRUPTS();
        reload_settings();
        if (!knows_configuration()) {
            apply_configuration();
            publish_status();
        }

        const bool more = source::run_round(round, sources());
        round.ready = sleep_until_work(more ? 0 : idle_time(round.save_due, round.show_due, round.again_due));
    }
}

}  // namespace

void give_back(const delivery::Report& report) {
    if (report.finished.empty()) return;
    call_guest([&] { sender.dispatcher->release(report.finished); });
    source::take_back(sources(), report.finished,
                      [](const delivery::Report::Finished& finished) { take_back_letters(finished.stream); });
}

[[noreturn]] void leave() {
    call_guest([&] { sender.dispatcher->drive({true, true}, broker::Clock::now()); });
    take_report();
    if (sender.unsaved) save_cursors();
    publish_status();
    call_guest([] { delete sender.dispatcher; });  // its driver says good-bye
    proc_exit(0);
}

static void serve(Datum argument) {
    sender.database = DatumGetObjectId(argument);
    memcpy(&sender.broker_id, MyBgworkerEntry->bgw_extra, sizeof sender.broker_id);
    processes::set_up_signals(processes::OnSigterm::finish_round);
    if (counters::pid_of_sender(sender.database, sender.broker_id) != 0) proc_exit(0);
    sender.place = counters::find_database(sender.database, false);
    if (sender.place == nullptr) proc_exit(0);
    sender.worker = counters::attach_worker(counters::WorkerKind::sender, sender.database, sender.broker_id);
    if (sender.worker == nullptr && counters::pid_of_sender(sender.database, sender.broker_id) != 0) proc_exit(0);
    if (sender.worker == nullptr) processes::refuse_for_lack_of_room();
    if (sender.place->suspended_by != 0) proc_exit(0);
    processes::connect_to(sender.database);
    // What a crash undoes of our cursors is sent again; waiting for the disk would buy nothing.
    SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);
    // What routes from the WAL have no room for in memory waits in temporary files.
    SetConfigOption("temp_file_limit", "-1", PGC_SUSET, PGC_S_OVERRIDE);

    sender.memory = AllocSetContextCreate(TopMemoryContext, "pg_eventbus sender", ALLOCSET_DEFAULT_SIZES);
    wait_for_skipper();
    read_broker_first();
    make_dispatcher();
    run();
}

}  // namespace eventbus::sender

extern "C" PGDLLEXPORT void eventbus_sender_main(Datum argument) {
    eventbus::sender::serve(argument);
}
