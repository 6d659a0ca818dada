#include "sender/unusable.hpp"

#include "catalog/catalog.hpp"
#include "postgres/encoding.hpp"
#include "postgres/query.hpp"
#include "processes/process.hpp"
#include "processes/sleep.hpp"
#include "sender/sender.hpp"

extern "C" {
#include "storage/ipc.h"
#include "utils/backend_status.h"
}

namespace eventbus::sender {

namespace {

constexpr long again_ms = 30000;  // a module, or a file, may have been installed meanwhile

char words[512];
List* shown = NIL;  // ids of routes

void tell(const GuestError& error) {
    char message[sizeof error.message];
    char detail[sizeof error.detail];
    char hint[sizeof error.hint];
    show_text(message, sizeof message, error.message);
    show_text(detail, sizeof detail, error.detail);
    show_text(hint, sizeof hint, error.hint);
    const bool has_detail = detail[0] != '\0';
    copy_text(words, sizeof words,
              psprintf("the broker cannot be used: %s%s%s", message, has_detail ? ": " : "", detail));
    ereport(
        WARNING,
        (errmsg("pg_eventbus: broker \"%s\" is left out: %s", sender.broker_name, message),
         errdetail("%s%sIts routes are held, and their events wait; other brokers continue. It is tried again when its "
                   "row changes, and every 30 s.",
                   detail, has_detail ? " " : ""),
         errhint("%s%seventbus.alter_broker changes the broker, eventbus.drop_broker forgets it.", hint,
                 hint[0] != '\0' ? " " : "")));
}

// Shows the routes that there are now; ends the process where the broker's row is another one, or has none.
void follow() {
    sender.configuration = sender.place->configuration;  // before reading: what changes meanwhile is read again
    if (!begin_transaction_on_extension("reading the routes of a broker that cannot be used")) proc_exit(0);
    SPI_connect();
    catalog::Broker broker;
    catalog::Route* routes = nullptr;
    int count = 0;
    if (catalog::read_broker(sender.broker_id, &broker, CurTransactionContext) &&
        broker.version == sender.broker_version)
        count = catalog::read_routes(sender.broker_id, &routes, CurTransactionContext);
    List* now = NIL;
    for (int i = 0; i < count; ++i) {
        show_unusable(routes[i].id, words);
        MemoryContext before = MemoryContextSwitchTo(sender.memory);
        now = lappend_int(now, routes[i].id);
        MemoryContextSwitchTo(before);
    }
    SPI_finish();
    commit_transaction();
    ListCell* cell;
    foreach (cell, shown)
        if (!list_member_int(now, lfirst_int(cell))) counters::free_route(sender.database, lfirst_int(cell));
    if (count == 0) proc_exit(0);
    list_free(shown);
    shown = now;
}

}  // namespace

// Between SPI_connect and SPI_finish.
void show_unusable(int32 route_id, const char* why) {
    counters::Route* shared = counters::claim_route(sender.database, route_id);
    if (shared == nullptr) return;
    const cursors::Counters counters = cursors::load_counters(route_id, CurrentMemoryContext);
    TimestampTz now = GetCurrentTimestamp();
    SpinLockAcquire(&shared->mutex);
    counters::note_past_error(shared, now);
    shared->sender_pid = MyProcPid;
    shared->configuration = sender.configuration;
    strlcpy(shared->state, "held", sizeof shared->state);
    shared->delivered = static_cast<std::uint64_t>(counters.delivered);
    shared->dead = static_cast<std::uint64_t>(counters.dead);
    shared->retries = static_cast<std::uint64_t>(counters.retries);
    shared->last_delivered_at = counters.last_delivered_at;
    shared->in_flight = 0;
    if (strcmp(shared->last_error, why) != 0 || shared->last_error_at <= shared->past_error_at) {
        strlcpy(shared->last_error, why, sizeof shared->last_error);
        shared->last_error_at = now;
    }
    shared->oldest = counters::oldest_unknown;
    SpinLockRelease(&shared->mutex);
}

void wait_until_usable(const GuestError& error, bool (*can_be_used)()) {
    tell(error);
    sender.worker->unusable = true;
    sender.configuration = sender.place->configuration - 1;
    char name[NAMEDATALEN];
    copy_text(name, sizeof name, sender.broker_name);
    for (SteadyTime tried_at = steady_now();;) {
        if (processes::stop_requested()) proc_exit(0);
        CHECK_FOR_INTERRUPTS();
        processes::reload_if_requested();
        const bool changed = sender.place->configuration != sender.configuration;
        if (changed) follow();
        if (changed || ms_have_passed(tried_at, steady_now(), again_ms)) {
            tried_at = steady_now();
            if (can_be_used()) {
                ereport(LOG, (errmsg("pg_eventbus: broker \"%s\" can be used now", sender.broker_name)));
                proc_exit(0);
            }
        }
        char activity[768];
        snprintf(activity, sizeof activity, "broker \"%s\": %s", name, words);
        pgstat_report_activity(STATE_IDLE, activity);
        processes::sleep_on_latch(again_ms, "EventbusSenderMain");
    }
}

}  // namespace eventbus::sender
