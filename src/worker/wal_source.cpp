// What it is: opening a sender's slot, and what becomes of its routes where that fails, or the slot is lost.
// Who calls it: wal_feed.cpp.
// Never: lets an error of the decoder end the sender.
#include "postgres/attempt.hpp"
#include "postgres/compat.hpp"
#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "wal/preflight.hpp"
#include "wal/slot.hpp"
#include "worker/process.hpp"
#include "worker/wal_detours.hpp"
#include "worker/wal_state.hpp"

extern "C" {
#include "access/xlog.h"
}

namespace eventbus::worker {

WalState wal_now;

namespace {

List* takers() {
    List* list = NIL;
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal != nullptr && !is_lost(route)) list = lappend(list, &route->wal->taker);
    }
    return list;
}

void show_trouble(const char* words, const char* hint) {
    char before[sizeof wal_now.trouble];
    strlcpy(before, wal_now.trouble, sizeof before);
    copy_text(wal_now.trouble, sizeof wal_now.trouble, words);
    bool news = strcmp(wal_now.trouble, before) != 0;
    copy_text(wal_now.hint, sizeof wal_now.hint, hint != nullptr ? hint : "");
    wal_now.retry_at = plus_ms(steady_now(), wal_now.backoff.next(static_cast<uint32>(MyProcPid)).count());
    sender.unshown = true;
    if (news)
        ereport(WARNING, (errmsg("pg_eventbus: routes from the WAL to broker \"%s\" stand still: %s",
                                 sender.broker_name, wal_now.trouble),
                          wal_now.hint[0] != '\0' ? errhint("%s", wal_now.hint) : 0));
}

void no_trouble() {
    if (wal_now.trouble[0] != '\0')
        ereport(LOG, (errmsg("pg_eventbus: routes from the WAL to broker \"%s\" go on", sender.broker_name)));
    wal_now.trouble[0] = wal_now.hint[0] = '\0';
    wal_now.failed_at = InvalidXLogRecPtr;
    wal_now.backoff.reset();
    sender.unshown = true;
}

void mark_lost(SenderRoute* route, const wal::SlotState& slot) {
    log::WalPlace& place = route->stored.cursor.wal;
    place.lost = true;
    (void)log::save_cursor(&route->stored, nullptr);
    ereport(WARNING,
            (errmsg("pg_eventbus: route \"%s\" to broker \"%s\" has lost its place in the WAL", route->name,
                    sender.broker_name),
             errdetail("Replication slot \"%s\" %s; changes committed after %s are not delivered.", place.slot,
                       !slot.exists ? "does not exist any more"
                       : slot.lost  ? "was invalidated (max_slot_wal_keep_size)"
                                    : psprintf("was made anew or advanced by somebody, and begins at %s",
                                               wal::lsn_text(slot.confirmed)),
                       wal::lsn_text(place.lsn)),
             errhint("Bring receivers up to date by other means, then eventbus.restart_route('%s').", route->name)));
}

// A slot has no time of creation, but ours is never moved beyond a cursor that is on disk (confirm_wal): one that
// stands there is another one. That of before pg_upgrade says nothing of the slot that was made for it, nor does a
// standby's of a slot that has come by another way than the cursor.
bool is_another(const wal::SlotState& slot, const SenderRoute* route) {
    return !slot.synced && route->wal->saved_of_slot && slot.confirmed > route->wal->saved.lsn;
}

// What there is of the slot, and which routes it has left behind. False where it cannot be used or made.
bool prepare(const char* name, bool* exists) {
    if (!begin_transaction_on_extension("looking for the replication slot")) return false;
    SPI_connect();
    wal::SlotState slot = wal::look_up_slot(name);
    wal::Need need = wal::missing_setting(slot.exists);
    bool usable = slot.exists && !slot.lost;
    bool any = false;
    bool lost_some = false;
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal == nullptr || is_lost(route)) continue;
        if (usable ? is_another(slot, route) : strcmp(route->stored.cursor.wal.slot, name) == 0) {
            mark_lost(route, slot);
            lost_some = true;
            continue;
        }
        any = true;
    }
    // One that nobody needs would keep WAL for ever.
    if (any ? slot.lost : usable && lost_some && !slot.active) wal::drop_slot(name);
    if (need.what != nullptr) show_trouble(need.what, need.hint);
    SPI_finish();
    commit_transaction();
    if (lost_some) {
        XLogFlush(XactLastCommitEnd);
        publish_status();
    }
    *exists = usable;
    return any && need.what == nullptr;
}

void open(void*) {
    char name[NAMEDATALEN];
    strlcpy(name, wal::slot_name(sender.database, sender.broker_id), sizeof name);
    bool exists = false;
    if (!prepare(name, &exists)) return;
    List* list = takers();
    wal::open_source(name, exists, list, &wal_now.failures, sender.memory, &wal_now.source);
    list_free(list);
    status::read_wal(sender.place, sender.worker, true);
}

}  // namespace

bool is_reading() {
    return wal::state_of(wal_now.source) == wal::State::running;
}

wal::Position handed_by_now() {
    return is_reading() ? wal::handed_by_now(wal_now.source) : wal::Position();
}

void close_wal_source() {
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal != nullptr) reopen_wal_detours(route, handed_by_now());
    }
    wal::close_source(wal_now.source);
    wal_now.source = nullptr;
    wal_now.unseen = wal_now.more = wal_now.at_end = false;
    wal_now.standbys_since = 0;
    status::read_wal(sender.place, sender.worker, false);
}

bool attempt(void (*work)(void*), void* argument) {
    ErrorData* error = survive(work, argument);
    if (error == nullptr) return true;
    const char* words = error_words(error);
    const char* hint = error->hint;
    if (is_reading() && wal::note_failure(wal_now.source, error)) {
        close_wal_source();
        FreeErrorData(error);
        wal_now.changed = true;
        return false;
    }
    if (is_reading()) {
        wal_now.failed_at = wal::read_by_now(wal_now.source);
        if (const char* table = wal::failed_table(wal_now.source)) {
            words = psprintf("a change of table %s cannot be decoded: %s", table, words);
            hint = psprintf("Mend it, or leave it out by the route option \"tables\": \"-%s\".", table);
        }
    }
    close_wal_source();
    show_trouble(words, hint);
    FreeErrorData(error);
    return false;
}

void open_wal_source_if_due() {
    if (wal_now.trouble[0] != '\0' && steady_now() < wal_now.retry_at && !wal_now.changed) return;
    List* list = takers();
    bool any = list != NIL;
    list_free(list);
    wal_now.changed = false;
    if (any) (void)attempt(open, nullptr);
}

bool standbys_have(XLogRecPtr lsn) {
    constexpr int long_ms = 1000;
    if (compat::standbys_have(lsn)) {
        if (wal_now.standbys_since != 0 && wal_now.trouble[0] != '\0' && wal_now.failed_at == InvalidXLogRecPtr)
            no_trouble();
        wal_now.standbys_since = 0;
        return true;
    }
    SteadyTime now = steady_now();
    if (wal_now.standbys_since == 0) wal_now.standbys_since = now;
    if (wal_now.trouble[0] == '\0' && ms_have_passed(wal_now.standbys_since, now, long_ms))
        show_trouble("standbys that synchronized_standby_slots names have not received all changes yet",
                     "Mend the standbys, or take them out of synchronized_standby_slots and reload.");
    return false;
}

void wal_source_began() {
    const char* slot = wal::slot_name(sender.database, sender.broker_id);
    if (wal_now.failed_at == InvalidXLogRecPtr) no_trouble();
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->wal == nullptr || is_lost(route)) continue;
        strlcpy(route->stored.cursor.wal.slot, slot, sizeof route->stored.cursor.wal.slot);
        route->stored.cursor.wal.system = static_cast<int64>(GetSystemIdentifier());
    }
    // At once: a standby that is promoted must know that there was a slot.
    sender.unsaved = true;
    sender.saved_at = 0;
}

void wal_source_moved() {
    if (wal_now.failed_at != InvalidXLogRecPtr && wal::read_by_now(wal_now.source) >= wal_now.failed_at &&
        !wal::is_handing_on(wal_now.source))
        no_trouble();
}

}  // namespace eventbus::worker
