// What it is: storing dead letters, and waiting where the database cannot take them for now.
// Who calls it: the sender's loop, with each report.
// Never: lets a cursor pass, or gives back, an event whose dead letter is not stored.
#include <algorithm>

#include "catalog/dead_letters.hpp"
#include "core/backoff.hpp"
#include "postgres/attempt.hpp"
#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "postgres/steady.hpp"
#include "processes/process.hpp"
#include "sender/sender.hpp"

namespace eventbus::sender {

namespace {

// What could not be stored, and when to try again.
struct Waiting {
    bool any;
    SteadyTime retry_at;
    SteadyTime out_of_memory_since;  // 0: something else is the matter
    char words[512];
    Backoff backoff{Backoff::Duration(1000), Backoff::Duration(30000)};  // ms
};

Waiting waiting;

int32 route_of(const delivery::DeadLetter& letter) {
    return static_cast<int32>(letter.route & ~redelivery_bit);
}

// One line a route and minute: a broken consumer must not fill the server log.
void tell(const delivery::DeadLetter& letter) {
    constexpr int quiet_ms = 60000;
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->id != route_of(letter)) continue;
        SteadyTime now = steady_now();
        if (!ms_have_passed(route->dead_told_at, now, quiet_ms)) return;
        route->dead_told_at = now;
        char words[512];
        show_text(words, sizeof words, letter.error);
        EventIdText id;
        to_text(letter.event->id, id);
        ereport(WARNING,
                (errmsg("pg_eventbus: route \"%s\" to broker \"%s\": event %s is a dead letter: %s", route->name,
                        sender.broker_name, id.data(), words),
                 errdetail(
                     "The route continues with later events. Further dead letters of it are not logged for a minute."),
                 letter.event->error.empty()
                     ? errhint("See eventbus.dead_letter; then eventbus.redeliver or eventbus.discard.")
                     : errhint("It is incomplete, and not sent again. See eventbus.dead_letter; publish it again, then "
                               "eventbus.discard.")));
    }
}

void store(void*) {
    constexpr int patience_ms = 100;  // with who drops a route, or has locked the table
    constexpr int enough_ms = 60000;  // of no memory for what may never have it
    if (!begin_transaction_on_extension("storing dead letters")) return;
    processes::wait_for_locks(patience_ms);
    SPI_connect();
    auto count = static_cast<int>(sender.report->dead.size());
    auto* letters = static_cast<catalog::DeadLetter*>(palloc(sizeof(catalog::DeadLetter) * static_cast<Size>(count)));
    for (int i = 0; i < count; ++i) {
        const delivery::DeadLetter& letter = sender.report->dead[static_cast<Size>(i)];
        letters[i] = {route_of(letter), letter.event, letter.error, static_cast<int32>(letter.attempts)};
    }
    const bool spare_memory =
        waiting.out_of_memory_since != 0 && ms_have_passed(waiting.out_of_memory_since, steady_now(), enough_ms);
    catalog::store_dead_letters(letters, count, spare_memory);
    SPI_finish();
    commit_transaction();
}

void wait(const ErrorData* error) {
    char before[sizeof waiting.words];
    strlcpy(before, waiting.words, sizeof before);
    const bool locked = error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
    copy_text(waiting.words, sizeof waiting.words,
              locked ? "the table, or the route by drop_route in a transaction that stays open, is locked"
                     : error_words(error));
    if (error->sqlerrcode != ERRCODE_OUT_OF_MEMORY)
        waiting.out_of_memory_since = 0;
    else if (waiting.out_of_memory_since == 0)
        waiting.out_of_memory_since = steady_now();
    bool news = !waiting.any || strcmp(waiting.words, before) != 0;
    waiting.any = true;
    waiting.retry_at = plus_ms(steady_now(), waiting.backoff.next(static_cast<uint32>(MyProcPid)).count());
    sender.unsaved = true;
    if (!news) return;
    EventIdText id;
    to_text(sender.report->dead.front().event->id, id);
    ereport(WARNING, (errmsg("pg_eventbus: dead letters of broker \"%s\" cannot be stored, event %s and %zu more: %s",
                             sender.broker_name, id.data(), sender.report->dead.size() - 1, waiting.words),
                      errdetail("What the broker was sent stays unsettled until they are stored; it is tried again, at "
                                "most 30 s apart."),
                      errhint("Fix what the message complains of.")));
}

}  // namespace

bool store_dead_letters() {
    if (sender.report->dead.empty()) return true;
    if (waiting.any && steady_now() < waiting.retry_at) return false;
    if (ErrorData* error = processes::survive(store, nullptr)) {
        wait(error);
        FreeErrorData(error);
        return false;
    }
    if (waiting.any)
        ereport(LOG, (errmsg("pg_eventbus: dead letters of broker \"%s\" are stored again", sender.broker_name)));
    waiting.any = false;
    waiting.out_of_memory_since = 0;
    waiting.backoff.reset();
    for (const delivery::DeadLetter& letter : sender.report->dead) {
        tell(letter);
        note_refused_again(letter);
        counters::stir_waiters(sender.database, letter.event->id);
    }
    sender.unsaved = true;
    return true;
}

bool letters_wait() {
    return waiting.any;
}

long letters_due() {
    if (!waiting.any) return -1;
    return std::max<long>(1, ms_until(waiting.retry_at));
}

}  // namespace eventbus::sender
