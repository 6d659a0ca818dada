// What it is: eventbus.wait_for_delivery of an event of the log, and what all forms of it share.
// Who calls it: applications, after the transaction that published.
// Never: polls; shows anything of an event but whether it was delivered.
//
// The tables know what is written down: cursors that are past the event, dead letters. What has happened since, and
// whether an event was delivered while an older one still waits, only the senders know; they answer through the place
// that we have in shared memory. It is taken before the tables are read, so that no change goes by unseen.
#include "intake/wait.hpp"

#include <algorithm>

#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "postgres/rights.hpp"
#include "postgres/version.hpp"
#include "router/route.hpp"
#include "settings/settings.hpp"
#include "source/log/cursors.hpp"

extern "C" {
#include "access/xlog.h"
}

namespace eventbus::intake {

namespace {

void check_server() {
    if (RecoveryInProgress())
        ereport(ERROR,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("cannot wait for delivery on a standby"),
                 errdetail("Events are delivered by the primary."),
                 errhint("Call eventbus.wait_for_delivery on the primary.")));
    if (counters::shared() == nullptr)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("pg_eventbus is not preloaded: nothing delivers events here"),
                        errhint("%s", settings::preload_hint())));
}

void check_fate(const Wait& wait) {
    switch (wait.event.fate) {
        case log::Fate::unknown:
            ereport(ERROR,
                    (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("event " INT64_FORMAT " does not exist", wait.id.number),
                     errdetail("No event of this database has been given that id."),
                     errhint("Pass an id that eventbus.publish has returned.")));
            break;
        case log::Fate::ours:
            ereport(ERROR, (errcode(ERRCODE_INVALID_TRANSACTION_STATE),
                            errmsg("cannot wait for event " INT64_FORMAT " in the transaction that publishes it",
                                   wait.id.number),
                            errdetail("An event is delivered after its transaction has committed."),
                            errhint("COMMIT first, then call eventbus.wait_for_delivery.")));
            break;
        case log::Fate::undone:
            ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
                            errmsg("event " INT64_FORMAT " was rolled back", wait.id.number),
                            errdetail("Its transaction or savepoint was rolled back, so it is never delivered."),
                            errhint("Publish it again.")));
            break;
        case log::Fate::gone:
        case log::Fate::running:
        case log::Fate::committed:
            break;
    }
}

// What the tables say of one route, from a row of read_tables().
bool takes(const Wait& wait, uint64 row) {
    if (wait.event.fate == log::Fate::gone) return true;  // all that is left to ask for is a dead letter
    const char* topics = text_at(row, 3);
    std::string_view patterns = to_utf8_or_marks(topics);
    return call_guest([&] { return router::TopicFilter(patterns).matches(wait.event.topic); });
}

counters::Answer answer_of_cursor(const Wait& wait, uint64 row) {
    if (wait.event.fate == log::Fate::gone) return counters::Answer::settled;
    const char* done = text_at(row, 4);
    if (done == nullptr) return counters::Answer::none;
    if (wait.event.place.at.generation < int8_at(row, 6)) return counters::Answer::left_out;
    bool behind = log::finished(log::snapshot_from_text(done, CurrentMemoryContext), wait.event.place.xid);
    return behind ? counters::Answer::settled : counters::Answer::none;
}

void read_tables(const Wait& wait) {
    Argument key = Argument::null_of(BYTEAOID);
    if (wait.event.key)
        key = Argument::of_bytes(
            cstring_to_text_with_len(wait.event.key->data(), static_cast<int>(wait.event.key->size())));
    // Before its update an older extension's table has the id in another column, and events without a key by their
    // numbers.
    const char* is_it = is_our_version() ? "d.lsn = '0/0' AND d.number = $1" : "d.event_id = $1";
    const char* number = is_our_version() ? "$1::text" : "$1";
    // Not the transaction's snapshot: under REPEATABLE READ nothing would ever change.
    PushActiveSnapshot(GetLatestSnapshot());
    run_query(psprintf("SELECT r.id, r.name, r.topics, coalesce(parked.done, c.done)::text, d.requeued, "
                       "coalesce(parked.first_generation, c.first_generation) FROM eventbus.route_config r "
                       "LEFT JOIN eventbus.cursor c ON c.route_id = r.id AND c.key IS NULL AND c.event_ids IS NULL "
                       "LEFT JOIN eventbus.cursor parked ON parked.route_id = r.id "
                       "AND (convert_to(parked.key, 'UTF8') = $3 OR %s = ANY (parked.event_ids)) "
                       "LEFT JOIN eventbus.dead_letter_store d ON d.route_id = r.id AND %s "
                       "WHERE r.source = 'log' AND ($2 IS NULL OR r.name = $2) ORDER BY r.id",
                       number, is_it),
              {Argument::of(wait.id.number), Argument::of(wait.route_name), key}, true);
    PopActiveSnapshot();
    if (SPI_processed == 0 && wait.route_name != nullptr) refuse_route(wait.route_name);
}

// The routes are those that are there when the call begins.
void choose_routes(Wait* wait, MemoryContext memory) {
    wait->routes = static_cast<WaitedRoute*>(MemoryContextAllocZero(memory, sizeof(WaitedRoute) * (SPI_processed + 1)));
    wait->count = 0;
    for (uint64 row = 0; row < SPI_processed; ++row)
        if (takes(*wait, row)) wait->routes[wait->count++] = {int4_at(row, 1), counters::Answer::none};
    if (wait->count == 0 && wait->route_name != nullptr)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("route \"%s\" does not take event " INT64_FORMAT, wait->route_name, wait->id.number),
                        errdetail("The event's topic matches none of the route's topics, so it is never delivered "
                                  "there."),
                        errhint("Leave out the route to wait for all routes that take the event.")));
}

Outcome look_at_event(Wait* wait) {
    MemoryContext caller = CurrentMemoryContext;
    SPI_connect();
    (void)note_answers(wait);
    read_tables(*wait);
    // Once more: what the tables call left out may have been delivered.
    bool known = note_answers(wait);
    if (wait->event.fate == log::Fate::running) {  // after the answers: one may say that a rolled back event is behind
        wait->event.fate = log::fate_of(wait->event.xmin);
        check_fate(*wait);
    }
    if (wait->count < 0) choose_routes(wait, caller);
    Outcome outcome = Outcome::delivered;
    bool any = false;
    for (uint64 row = 0; row < SPI_processed; ++row) {
        WaitedRoute* route = find_waited(*wait, int4_at(row, 1));
        if (route == nullptr) continue;
        any = true;
        bool is_dead = !is_null_at(row, 5);
        if (is_dead) route->answer = counters::Answer::settled;
        if (route->answer == counters::Answer::none) route->answer = answer_of_cursor(*wait, row);
        if (is_dead ? !bool_at(row, 5) : route->answer == counters::Answer::left_out) {
            outcome = Outcome::not_delivered;
            break;
        }
        if (is_dead || route->answer == counters::Answer::none) outcome = Outcome::pending;
    }
    if (!any && wait->route_name != nullptr) refuse_route(wait->route_name);  // one that has its name is another one
    SPI_finish();
    return known ? outcome : Outcome::pending;  // the answer has woken us: we look again at once
}

// Asks the senders for what is left, once they have answered what they were asked before.
void ask(Wait* wait) {
    for (int i = 0; i < wait->asked_count; ++i)
        if (wait->asked[i]->answer == counters::Answer::none) return;
    int32 ids[counters::most_wanted];
    wait->asked_count = 0;
    for (int i = 0; i < wait->count && wait->asked_count < counters::most_wanted; ++i) {
        if (wait->routes[i].answer != counters::Answer::none) continue;
        ids[wait->asked_count] = wait->routes[i].id;
        wait->asked[wait->asked_count++] = &wait->routes[i];
    }
    if (wait->asked_count > 0) counters::want(wait->waiter, ids, wait->asked_count);
}

bool look_and_sleep(Wait* wait, Outcome (*look)(Wait*)) {
    for (;;) {
        std::uint32_t seen = wait->waiter->changes;
        Outcome outcome = look(wait);
        if (outcome != Outcome::pending) return outcome == Outcome::delivered;
        ask(wait);
        if (!counters::wait_for_change(wait->waiter, seen, wait->until)) return false;
    }
}

void give_place_back(int, Datum waiter) {
    counters::free_waiter(reinterpret_cast<counters::Waiter*>(DatumGetPointer(waiter)));
}

}  // namespace

WaitedRoute* find_waited(const Wait& wait, int32 id) {
    WaitedRoute* end = wait.routes + wait.count;
    WaitedRoute* found = std::find_if(wait.routes, end, [&](const WaitedRoute& route) { return route.id == id; });
    return found == end ? nullptr : found;
}

[[noreturn]] void refuse_null(const char* argument) {
    ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", argument),
                    errdetail("eventbus.wait_for_delivery was called with a null %s.", argument),
                    errhint("\\df+ eventbus.wait_for_delivery describes the arguments.")));
    pg_unreachable();
}

[[noreturn]] void refuse_route(const char* name) {
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("route \"%s\" does not exist", name),
                    errhint("The view eventbus.route lists the routes; without a route the call waits for all that "
                            "take the event.")));
    pg_unreachable();
}

Wait read_wait(FunctionCallInfo fcinfo, const char* what) {
    if (PG_ARGISNULL(0)) refuse_null(what);
    if (PG_ARGISNULL(1)) refuse_null("timeout");
    refuse_in_parallel(fcinfo);
    Wait wait = {};
    wait.until = steady_now() + microseconds_of(PG_GETARG_INTERVAL_P(1));
    wait.route_name = PG_ARGISNULL(2) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(2));
    wait.count = -1;
    check_server();
    return wait;
}

bool note_answers(Wait* wait) {
    counters::Wanted answers = counters::answers_of(wait->waiter);
    bool known = true;
    for (int i = 0; i < wait->asked_count; ++i) {
        counters::Answer& answer = wait->asked[i]->answer;
        if ((answers.settled >> i & 1) != 0) {
            known = known && answer == counters::Answer::settled;
            answer = counters::Answer::settled;
        }
        if ((answers.left_out >> i & 1) != 0) answer = counters::Answer::left_out;
    }
    return known;
}

bool wait_until_settled(Wait* wait, Outcome (*look)(Wait*)) {
    wait->waiter = counters::claim_waiter(wait->id, wait->event.place);
    if (wait->waiter == nullptr)
        ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                        errmsg("too many sessions wait for the delivery of events"),
                        errdetail("At most %d sessions of a server can wait at a time.", counters::max_waiters),
                        errhint("Try again later.")));
    bool delivered = false;
    PG_ENSURE_ERROR_CLEANUP(give_place_back, PointerGetDatum(wait->waiter));
    { delivered = look_and_sleep(wait, look); }
    PG_END_ENSURE_ERROR_CLEANUP(give_place_back, PointerGetDatum(wait->waiter));
    counters::free_waiter(wait->waiter);
    return delivered;
}

bool wait_for_event(Wait* wait) {
    wait->event = log::find_event(wait->id.number);
    check_fate(*wait);
    return wait_until_settled(wait, look_at_event);
}

}  // namespace eventbus::intake

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_wait_for_delivery);
}

Datum eventbus_wait_for_delivery(PG_FUNCTION_ARGS) {
    using namespace eventbus::intake;
    Wait wait = read_wait(fcinfo, "event_id");
    wait.id = eventbus::EventId::of_log(PG_GETARG_INT64(0));
    PG_RETURN_BOOL(wait_for_event(&wait));
}
