// What it is: a sender's decoder: its start and end, what it says, and what becomes of routes where the slot is lost.
// Who calls it: wal_feed.cpp.
// Never: lets what a decoder meets end the sender, or waits for it.
#include <algorithm>
#include <cctype>

#include "counters/worker_slots.hpp"
#include "postgres/attempt.hpp"
#include "postgres/compat.hpp"
#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "postgres/wal_end.hpp"
#include "processes/process.hpp"
#include "sender/wal_parked_keys.hpp"
#include "sender/wal_state.hpp"
#include "source/wal/preflight.hpp"
#include "source/wal/slot.hpp"

extern "C" {
#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "storage/ipc.h"
}

namespace eventbus::sender {

WalState wal_now;

namespace {

char database_name[NAMEDATALEN];

// Names of temporary files, processes and places differ each time.
bool same_but_for_numbers(const char* a, const char* b) {
    auto skip = [](const char** at) {
        while (isxdigit(static_cast<unsigned char>(**at)) || **at == '.') ++*at;
    };
    for (;; ++a, ++b) {
        skip(&a);
        skip(&b);
        if (*a != *b || *a == '\0') return *a == *b;
    }
}

void show_trouble(const char* words, const char* hint) {
    char before[sizeof wal_now.trouble];
    strlcpy(before, wal_now.trouble, sizeof before);
    copy_text(wal_now.trouble, sizeof wal_now.trouble, words);
    const bool news = !same_but_for_numbers(wal_now.trouble, before);
    copy_text(wal_now.hint, sizeof wal_now.hint, hint != nullptr ? hint : "");
    wal_now.retry_at = plus_ms(steady_now(), wal_now.backoff.next(static_cast<uint32>(MyProcPid)).count());
    sender.unshown = true;
    if (news)
        ereport(WARNING, (errmsg("pg_eventbus: routes from the WAL to broker \"%s\" are stalled: %s",
                                 sender.broker_name, wal_now.trouble),
                          wal_now.hint[0] != '\0' ? errhint("%s", wal_now.hint) : 0));
}

void no_trouble() {
    if (wal_now.trouble[0] != '\0')
        ereport(LOG, (errmsg("pg_eventbus: routes from the WAL to broker \"%s\" continue", sender.broker_name)));
    wal_now.trouble[0] = wal_now.hint[0] = '\0';
    wal_now.failed_at = InvalidXLogRecPtr;
    wal_now.backoff.reset();
    sender.unshown = true;
}

void mark_lost(SenderRoute* route, const wal::SlotState& slot) {
    wal::Place& place = wal_of(route)->place;
    if (wal_now.ended_at != 0)
        put_wal_place(route, status_of(route).settled);  // of what has been read some may have been delivered since
    place.lost = true;
    forget_wal_file(wal_of(route));
    forget_files_of_parked_keys(route);
    note_errors(route);
    (void)wal::save_place(&route->row, place, nullptr);
    ereport(WARNING,
            (errmsg("pg_eventbus: route \"%s\" to broker \"%s\" has lost its place in the WAL", route->name,
                    sender.broker_name),
             errdetail("Replication slot \"%s\" %s; changes committed from %s on are not delivered.", place.slot,
                       !slot.exists ? "does not exist any more"
                       : slot.alien ? "is somebody else's now"
                       : slot.lost  ? "was invalidated (max_slot_wal_keep_size)"
                                    : psprintf("was made again or advanced by somebody, and begins at %s",
                                               lsn_text(slot.confirmed)),
                       place_text(place)),
             errhint("Bring receivers up to date by other means, then eventbus.restart_route(%s).",
                     quote_literal_cstr(route->name))));
}

// A slot has no time of creation, but ours is never moved beyond a cursor that is on disk (confirm_wal): one that
// stands there is another one. That of before pg_upgrade says nothing of the slot that was made for it, nor does a
// standby's of a slot that has come by another way than the cursor.
bool is_another(const wal::SlotState& slot, const SenderRoute* route) {
    return !slot.synced && wal_of(route)->saved_of_slot && slot.confirmed > wal_of(route)->saved.lsn;
}

// What there is of the slot, and which routes it has left behind. False where it cannot be used or made.
bool prepare(const char* name, bool* exists) {
    if (!begin_transaction_on_extension("looking for the replication slot")) return false;
    SPI_connect();
    strlcpy(database_name, get_database_name(sender.database), sizeof database_name);
    wal::SlotState slot = wal::look_up_slot(name);
    wal::Need need = wal::missing_setting(slot.exists);
    if (slot.alien != nullptr) need = {slot.alien, wal::hint_to_drop(name)};
    bool usable = slot.exists && !slot.lost && slot.alien == nullptr;
    bool any = false;
    bool lost_some = false;
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (is_lost(route)) continue;
        if (usable ? is_another(slot, route) : strcmp(wal_of(route)->place.slot, name) == 0) {
            mark_lost(route, slot);
            lost_some = true;
            continue;
        }
        any = true;
    }
    // One that nobody needs would keep WAL for ever.
    if (slot.alien == nullptr && (any ? slot.lost : usable && lost_some && !slot.active)) wal::drop_slot(name);
    if (need.what != nullptr) show_trouble(need.what, need.hint);
    SPI_finish();
    commit_transaction();
    if (lost_some) {
        XLogFlush(XactLastCommitEnd);
        publish_status();
        if (wal_now.ended_at != 0) sender.begin_again = true;  // with nothing but the cursors
    }
    *exists = usable;
    return any && need.what == nullptr;
}

// What the routes want now, in the order of `takers`.
void fill_task(processes::Task* task) {
    task->failures = wal_now.failures;
    const int most = list_length(wal_now.routes);
    wal_now.takers =
        static_cast<SenderRoute**>(MemoryContextAlloc(wal_now.memory, sizeof(void*) * static_cast<Size>(most)));
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (is_lost(route)) continue;
        wal_now.takers[list_length(task->takers)] = route;
        wal_of(route)->is_read = true;
        read_again(route);
        auto* taker = static_cast<wal::Taker*>(palloc0(sizeof(wal::Taker)));
        taker->selection = wal_of(route)->selection;
        taker->from = wal_of(route)->from;
        taker->past_from = first_of_parked_keys(route, wal_of(route)->from);
        task->takers = lappend(task->takers, taker);
        task->topics = lappend(task->topics, route->guests.topics);
    }
    wal_now.taker_count = list_length(task->takers);
}

void note_starved(bool starved) {
    static bool registered = false;
    if (starved != wal_now.starved) sender.place->missing_decoders.fetch_add(starved ? 1 : -1);
    wal_now.starved = starved;
    if (!registered) before_shmem_exit([](int, Datum) { note_starved(false); }, 0);
    registered = true;
}

void tell_decoder_that_we_leave(dsm_segment* segment, Datum) {
    static_cast<processes::ChannelHead*>(dsm_segment_address(segment))->closed = true;
}

void open(void*) {
    processes::Task task = {};
    strlcpy(task.slot, wal::slot_name(sender.database, sender.broker_id), sizeof task.slot);
    if (!prepare(task.slot, &task.exists)) return;
    if (wal_now.memory == nullptr)
        wal_now.memory = AllocSetContextCreate(sender.memory, "pg_eventbus decoder's channel", ALLOCSET_SMALL_SIZES);
    MemoryContext before = MemoryContextSwitchTo(wal_now.memory);
    fill_task(&task);
    char* bytes;
    Size length;
    processes::describe(task, &bytes, &length);
    wal_now.channel = dsm_create(processes::channel_bytes(length), 0);
    dsm_pin_mapping(wal_now.channel);
    wal_now.head = new (dsm_segment_address(wal_now.channel)) processes::ChannelHead();
    wal_now.head->description = length;
    memcpy(processes::description_of(wal_now.head), bytes, length);
    shm_mq* queue = shm_mq_create(processes::queue_of(wal_now.head), processes::queue_bytes);
    shm_mq_set_receiver(queue, MyProc);
    wal_now.decoder = processes::start_decoder(
        sender.database, database_name, {sender.broker_id, dsm_segment_handle(wal_now.channel)}, sender.broker_name);
    MemoryContextSwitchTo(before);
    if (wal_now.decoder == nullptr) {
        note_starved(true);
        ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                        errmsg("no background worker slot is free for the decoder; max_worker_processes is %d",
                               max_worker_processes),
                        errhint("Set max_worker_processes to at least %d and restart the server.",
                                counters::wanted_worker_processes())));
    }
    note_starved(false);
    wal_now.inbox = {shm_mq_attach(queue, wal_now.channel, wal_now.decoder), wal_now.memory, nullptr, 0, 0};
    // Before the queue is left, which wakes the decoder.
    on_dsm_detach(wal_now.channel, tell_decoder_that_we_leave, PointerGetDatum(nullptr));
    wal_now.state = wal::State::starting;
    wal_now.looked_at = 0;
    wal_now.makes_slot = !task.exists;
    wal_now.words[0] = '\0';
}

void forget_channel() {
    if (wal_now.channel != nullptr) dsm_detach(wal_now.channel);
    wal_now.channel = nullptr;
    wal_now.head = nullptr;
    if (wal_now.memory != nullptr) MemoryContextDelete(wal_now.memory);
    wal_now.memory = nullptr;
    wal_now.takers = nullptr;
    wal_now.makes_slot = false;
    wal_now.words[0] = '\0';
    wal_now.state = wal::State::closed;
}

// What was tried has failed: nothing of it is left.
void close_for(ErrorData* error) {
    close_decoder();
    show_trouble(error_words(error), error->hint);
    FreeErrorData(error);
}

// The slot is there, complete, for the first time since the decoder began.
void began() {
    const char* slot = wal::slot_name(sender.database, sender.broker_id);
    wal_now.state = wal::State::running;
    wal_now.makes_slot = false;
    if (wal_now.failed_at == InvalidXLogRecPtr) no_trouble();
    for (int i = 0; i < wal_now.taker_count; ++i) {
        SenderRoute* route = wal_now.takers[i];
        wal_of(route)->begun = true;
        strlcpy(wal_of(route)->place.slot, slot, sizeof wal_of(route)->place.slot);
        wal_of(route)->place.system = static_cast<int64>(GetSystemIdentifier());
    }
    // At once: a standby that is promoted must know that there was a slot.
    sender.unsaved = true;
    sender.saved_at = 0;
}

struct Message {
    const char* bytes;
    Size length;
};

void take_events(void* argument) {
    const auto* message = static_cast<const Message*>(argument);
    wal::BatchReader found = {};
    found.at = message->bytes + sizeof(processes::BatchHead);
    found.end = message->bytes + message->length;
    for (; wal::next(&found); ++wal_now.events) take_wal_event(wal_now.takers[found.taker], found);
}

// Memory is short, or what else it takes to have what was sent. Where it is because of an event that takes much, that
// is what shall be left out if it continues.
void note_shortage(const processes::BatchHead& head, int sqlstate) {
    wal_now.failed_at = head.read;
    if (head.large != 0 && ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_INSUFFICIENT_RESOURCES)
        (void)wal::note_attempt(&wal_now.failures, head.large, sqlstate);
}

// All of it, but for who cannot have a file, or, where memory is short, nothing.
bool take_all_events(Message message, const processes::BatchHead& head) {
    ErrorData* error = processes::survive(take_events, &message);
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (error == nullptr) {
            keep_what_came(wal_of(route), wal_now.handed, head.found);
            keep_what_came_to_parked_keys(route, wal_now.handed, head.found);
        } else {
            take_back_what_came(wal_of(route));
            take_back_what_came_to_parked_keys(route);
        }
    }
    if (error == nullptr) return true;
    note_shortage(head, error->sqlerrcode);
    close_for(error);
    return false;
}

void take_batch(const Message& message) {
    processes::BatchHead head;
    memcpy(&head, message.bytes, sizeof head);
    if (wal_now.state == wal::State::starting) began();
    if (message.length > sizeof head && !take_all_events(message, head)) return;
    wal_now.handed = head.found;
    wal_now.read = head.read;
    const bool at_end = !head.more;
    if (at_end != wal_now.at_end) sender.unshown = true;
    wal_now.at_end = at_end;
    // A clock that was set back makes what lay before now lie ahead.
    TimestampTz known = std::min(wal_now.handed_until, head.since);
    wal_now.handed_until = at_end ? head.since : std::max(known, head.last_commit);
    // Standbys were waited for, or what failed has been passed.
    if (wal_now.trouble[0] == '\0') return;
    if (wal_now.failed_at == InvalidXLogRecPtr || (head.read >= wal_now.failed_at && !head.handing)) no_trouble();
}

void take_too_large(const Message& message) {
    processes::BatchHead head;
    memcpy(&head, message.bytes, sizeof head);
    note_shortage(head, ERRCODE_OUT_OF_MEMORY);
    close_decoder();
    show_trouble(psprintf("out of memory for an event of the WAL, which takes %zu bytes", message.length),
                 "See that there is memory. If it continues for a minute, the event becomes a dead letter without its "
                 "payload.");
}

void take_words(const char* message) {
    processes::WordsHead head;
    memcpy(&head, message, sizeof head);
    if (head.starting) {
        strlcpy(wal_now.words, head.words, sizeof wal_now.words);
        sender.unshown = true;
    } else if (wal_now.trouble[0] == '\0') {
        show_trouble(head.words, head.hint);
    }
}

void take_failure(const char* message) {
    processes::FailedHead head;
    memcpy(&head, message, sizeof head);
    Oid table;
    memcpy(&table, message + sizeof head, sizeof table);
    head.failures.tables = wal_now.failures.tables;
    wal_now.failures = head.failures;
    if (OidIsValid(table) && !list_member_oid(wal_now.failures.tables, table)) {
        MemoryContext before = MemoryContextSwitchTo(sender.memory);
        wal_now.failures.tables = lappend_oid(wal_now.failures.tables, table);
        MemoryContextSwitchTo(before);
    }
    close_decoder();
    if (head.at_once) {
        wal_now.changed = true;
        return;
    }
    wal_now.failed_at = head.reading ? head.read : InvalidXLogRecPtr;
    show_trouble(head.words, head.hint);
}

// It was ended by somebody (the server does so when it invalidates the slot), or could not even say what failed.
void take_silence() {
    constexpr int rarely_ms = 10000;
    constexpr int often = 5;
    const bool rare = wal_now.ended_at == 0 || ms_have_passed(wal_now.ended_at, steady_now(), rarely_ms);
    wal_now.ended_at = steady_now();
    wal_now.times_ended = rare ? 1 : wal_now.times_ended + 1;
    close_decoder();
    wal_now.changed = wal_now.times_ended < often;
    if (!wal_now.changed)
        show_trouble("their decoder ends again and again without a word: somebody terminates it, or it cannot connect",
                     "Look into the server log for what PostgreSQL says of \"pg_eventbus decoder\".");
}

}  // namespace

std::uint64_t events_from_wal() {
    return wal_now.events;
}

bool is_reading() {
    return wal_now.state == wal::State::running;
}

wal::Position handed_by_now() {
    return is_reading() ? wal_now.handed : wal::Position();
}

void close_decoder() {
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        WalFeed* feed = wal_of(route);
        if (!feed->is_read) continue;
        if (!feed->behind) feed->from = std::max(feed->from, handed_by_now());
        close_wal_parked_keys(route, std::min(handed_by_now(), feed->from));
        feed->is_read = false;
    }
    forget_channel();
    if (wal_now.decoder != nullptr) TerminateBackgroundWorker(wal_now.decoder);
    wal_now.unread = wal_now.at_end = false;
    wal_now.handed = {};
    wal_now.confirmed = wal_now.tried = InvalidXLogRecPtr;
    wal_now.confirm_waits = false;
}

bool a_decoder_leaves() {
    if (wal_now.decoder == nullptr || wal_now.state != wal::State::closed) return false;
    if (processes::state_of(wal_now.decoder) != processes::ChildState::gone) return true;
    pfree(wal_now.decoder);
    wal_now.decoder = nullptr;
    return false;
}

void open_decoder_if_due() {
    if (a_decoder_leaves() || sender.place->suspended_by != 0) return;
    if (wal_now.trouble[0] != '\0' && steady_now() < wal_now.retry_at && !wal_now.changed) return;
    wal_now.changed = false;
    ListCell* cell;
    foreach (cell, wal_now.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (is_lost(route)) continue;
        if (ErrorData* error = processes::survive(open, nullptr)) close_for(error);
        return;
    }
}

bool notice_lost_slot() {
    constexpr int rarely_ms = 10000;
    if (wal_now.looked_at != 0 && !ms_have_passed(wal_now.looked_at, steady_now(), rarely_ms)) return false;
    if (wal_now.decoder == nullptr || processes::state_of(wal_now.decoder) != processes::ChildState::gone) return false;
    wal_now.looked_at = steady_now();
    bool lost = false;
    auto look = [&lost] {
        if (!begin_transaction_on_extension("looking for the replication slot")) return;
        SPI_connect();
        const wal::SlotState slot = wal::look_up_slot(wal::slot_name(sender.database, sender.broker_id));
        lost = !slot.exists || slot.lost || slot.alien != nullptr;
        SPI_finish();
        commit_transaction();
    };
    auto call = [](void* argument) { (*static_cast<decltype(look)*>(argument))(); };
    if (ErrorData* error = processes::survive(call, &look)) FreeErrorData(error);  // it is looked at again
    if (lost) take_silence();
    return lost;
}

bool receive_from_decoder(const WalLimits& limits) {
    wal_now.unread = false;
    // What was read for the routes as they were is read again where the change is theirs.
    while (knows_configuration() && !(is_reading() && wal_now.changed)) {
        processes::Received received;
        Message message;
        auto look = [&] { received = processes::receive(&wal_now.inbox, &message.bytes, &message.length); };
        auto call = [](void* argument) { (*static_cast<decltype(look)*>(argument))(); };
        if (ErrorData* error = processes::survive(call, &look)) {
            close_for(error);
            return false;
        }
        switch (received) {
            case processes::Received::too_large:
                take_too_large(message);
                return false;
            case processes::Received::nothing:
                return false;
            case processes::Received::gone:
                take_silence();
                return wal_now.changed;
            case processes::Received::message:
                break;
        }
        switch (static_cast<processes::MessageKind>(*message.bytes)) {
            case processes::MessageKind::batch:
                take_batch(message);
                if (is_closed()) return false;
                break;
            case processes::MessageKind::words:
                take_words(message.bytes);
                break;
            case processes::MessageKind::failed:
                take_failure(message.bytes);
                return wal_now.changed;
        }
        ListCell* cell;
        foreach (cell, wal_now.routes) {
            auto* route = static_cast<SenderRoute*>(lfirst(cell));
            wal_now.unread = wal_now.unread || is_full(wal_of(route), limits);
        }
        if (wal_now.unread) return true;
    }
    wal_now.unread = true;
    return true;
}

}  // namespace eventbus::sender
