// What it is: the decoder of a broker's routes from the WAL: reads the slot, and tells the sender what it found.
// Who calls it: the sender starts one for each time that it reads, with routes and places as they are then.
// Never: reads or writes a table but as decoding does; resumes after an error: what it had looked up may be wrong then.
//
// One process does nothing else but decode, as PostgreSQL's own senders do: what decoding looks up is the catalog of
// another time, in caches that a process has only once. And a lock, a file or a type's output function that decoding
// waits for blocks no route from the log.
#include <malloc.h>

#include <algorithm>
#include <utility>

#include "postgres/attempt.hpp"
#include "postgres/compat.hpp"
#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "postgres/steady.hpp"
#include "processes/decoder_channel.hpp"
#include "processes/process.hpp"
#include "processes/skip_unserved.hpp"
#include "processes/sleep.hpp"
#include "router/route.hpp"
#include "settings/settings.hpp"
#include "source/wal/slot.hpp"

extern "C" {
#include "access/xlog.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/standby.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
}

namespace eventbus::processes {

namespace {

constexpr Size batch_bytes = 128 * 1024;
constexpr long look_again_ms = 1000;
constexpr long starting_ms = 50;       // between looks while a slot is made
constexpr long unseen_ms = 10;         // and while what was found cannot be seen yet; its commit wakes us earlier
constexpr long nothing_new_ms = 100;   // a batch without events waits so long for others
constexpr int lock_patience_ms = 500;  // of what a type's output function locks

// Something is waited for: since when (0: it is not), and whether that has been told.
struct Waiting {
    SteadyTime since;
    bool told;
    // Whether it is to be told now.
    bool is_news() {
        constexpr long patience_ms = 1000;
        const SteadyTime now = steady_now();
        if (since == 0) since = now;
        if (told || !ms_have_passed(since, now, patience_ms)) return false;
        told = true;
        return true;
    }
    long look_again() const { return told ? look_again_ms / 2 : unseen_ms; }
};

struct Decoder {
    counters::Database* place;
    counters::Worker* worker;
    ChannelHead* head;
    shm_mq_handle* queue;
    MemoryContext memory;
    Task task;
    wal::Source* source;
    wal::Batch* batch;
    TimestampTz since;   // when the reading began of which the batch is what was found
    bool more;           // the last step did not come to the end of what there is
    bool unsent;         // something was read since the last message,
    BatchHead told;      // which said this,
    SteadyTime sent_at;  // then
    Waiting standbys;    // that are to have it first,
    Waiting unseen;      // and until others can see it
    SteadyTime began_at;
    std::uint64_t confirmed;  // what was asked for last
    bool confirm_waits;       // for standbys
    bool had_large;           // an event that takes much memory, which has not been given back to the system yet
    bool failed;              // nothing but telling why is left to do
};

Decoder decoder;

// What pg_stat_activity says.
void show(BackendState state, const char* text) {
    static BackendState shown = STATE_UNDEFINED;
    static char shown_text[256];
    if (state == shown && strcmp(text, shown_text) == 0) return;
    shown = state;
    strlcpy(shown_text, text, sizeof shown_text);
    pgstat_report_activity(state, shown_text);
}

const char* what_is_waited_for() {
    if (decoder.standbys.told) return "waiting for standbys that synchronized_standby_slots names";
    if (decoder.unseen.told) return "waiting until others can see what was committed";
    if (wal::state_of(decoder.source) == wal::State::running) return "waiting for WAL to be written";
    const char* words = wal::words_of(decoder.source);
    return words[0] != '\0' ? words : "making the replication slot";
}

// The sender has continued without us, or somebody wants the process to end.
void leave_if_told() {
    if (decoder.head->closed || stop_requested()) proc_exit(0);
}

bool wants(void* filter, std::string_view topic) {
    return matches(static_cast<const router::TopicFilter*>(filter), topic);
}

void read_task() {
    MemoryContext before = MemoryContextSwitchTo(decoder.memory);
    read_description(description_of(decoder.head), decoder.head->description, &decoder.task);
    for (int i = 0; i < list_length(decoder.task.takers); ++i) {
        auto* taker = static_cast<wal::Taker*>(list_nth(decoder.task.takers, i));
        const char* topics = static_cast<const char*>(list_nth(decoder.task.topics, i));
        taker->context = call_guest([&] { return new router::TopicFilter(topics); });
        taker->wants = wants;
    }
    decoder.batch = wal::make_batch(decoder.memory);
    MemoryContextSwitchTo(before);
}

// Lets go of what the sender needs no more. A promoted standby would have the slot without the cursors and dead letters
// that it has been moved for.
void confirm() {
    const std::uint64_t wanted = decoder.head->confirm;
    if (wanted == decoder.confirmed) return;
    decoder.confirm_waits = !compat::standbys_have(decoder.head->written);
    if (decoder.confirm_waits) return;
    decoder.confirmed = wanted;
    wal::confirm(decoder.source, wanted);
}

// The sender has no room for more. It may have others' places to release.
void wait_for_room() {
    constexpr long look_ms = 1000;
    leave_if_told();
    CHECK_FOR_INTERRUPTS();
    if (!decoder.failed) confirm();
    show(STATE_IDLE, "waiting for the sender: its routes have no room");
    sleep_on_latch(look_ms, "EventbusDecoderFull");
}

void tell(const void* head, Size head_bytes, const void* body, Size body_bytes) {
    if (!send(decoder.queue, head, head_bytes, body, body_bytes, wait_for_room)) proc_exit(0);
}

void tell_words(bool starting, const char* words, const char* hint) {
    WordsHead head = {};
    head.kind = MessageKind::words;
    head.starting = starting;
    copy_text(head.words, sizeof head.words, words);
    copy_text(head.hint, sizeof head.hint, hint);
    tell(&head, sizeof head, nullptr, 0);
}

void tell_starting() {
    static char told[sizeof WordsHead::words] = "-";
    if (strcmp(told, wal::words_of(decoder.source)) == 0) return;
    strlcpy(told, wal::words_of(decoder.source), sizeof told);
    tell_words(true, told, "");
}

void tell_batch() {
    BatchHead& head = decoder.told;
    head.kind = MessageKind::batch;
    head.more = decoder.more;
    head.handing = wal::is_handing_on(decoder.source);
    head.found = wal::found_by_now(decoder.source);
    head.large = decoder.batch->large;
    decoder.had_large = decoder.had_large || head.large != 0;
    head.read = wal::read_by_now(decoder.source);
    head.since = decoder.since;
    head.last_commit = wal::committed_by_now(decoder.source);
    tell(&head, sizeof head, decoder.batch->bytes, decoder.batch->length);
    wal::clear(decoder.batch);
    decoder.unsent = false;
    decoder.sent_at = steady_now();
}

// There is more, which may not be told yet.
void tell_more() {
    if (decoder.told.more || !ms_have_passed(decoder.sent_at, steady_now(), unseen_ms)) return;
    decoder.told.more = true;
    tell(&decoder.told, sizeof decoder.told, nullptr, 0);
}

// WAL is flushed before a transaction leaves the array of processes: nobody hears of what others cannot see.
bool all_is_visible() {
    if (!wal::has_unseen(decoder.source)) return true;
    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    bool visible = wal::all_is_visible(decoder.source);
    PopActiveSnapshot();
    CommitTransactionCommand();
    return visible;
}

// What was committed without waiting for the disk is flushed here: decoding reads nothing else.
void flush_wanted() {
    const XLogRecPtr wanted = decoder.place->wal_end;
    if (wanted > GetFlushRecPtr(nullptr)) XLogFlush(wanted);
}

bool something_has_come() {
    return decoder.place->wal_end > wal::read_by_now(decoder.source) || decoder.head->closed ||
           (decoder.head->confirm != decoder.confirmed && !decoder.confirm_waits);
}

// How much WAL may be written by others before we look: a segment, or half of what the server keeps for a slot.
std::uint64_t bound() {
    constexpr std::uint64_t mb = 1024 * 1024;
    const auto segment = static_cast<std::uint64_t>(wal_segment_size);
    return max_slot_wal_keep_size_mb > 0
               ? std::min(segment, static_cast<std::uint64_t>(max_slot_wal_keep_size_mb) * mb / 2)
               : segment;
}

void ask_to_confirm(XLogRecPtr before) {
    if (decoder.head->wanted == before) return;
    decoder.head->wanted = before;
    if (PGPROC* sender = shm_mq_get_receiver(queue_of(decoder.head))) SetLatch(&sender->procLatch);
}

// The slot's restart_lsn moves from one record of running transactions to the next. The server writes one every 15 s,
// and may have written more WAL by then than it keeps. Returns true where there is one to be read now; `held_back`:
// a transaction is open without which the next one would help.
bool make_place(bool* held_back) {
    static XLogRecPtr made_at = InvalidXLogRecPtr;
    static XLogRecPtr made_from = InvalidXLogRecPtr;
    static TransactionId made_beside = InvalidTransactionId;  // the oldest that ran then
    const XLogRecPtr read = wal::read_by_now(decoder.source);
    XLogRecPtr from;
    XLogRecPtr next;
    *held_back = false;
    wal::look_at_place(&from, &next);
    if (read - from < bound()) return false;
    if (next != InvalidXLogRecPtr) {
        ask_to_confirm(next);
        return false;
    }
    const TransactionId oldest = GetOldestActiveTransactionId();
    // It holds the place back: that it is told once more changes nothing.
    if (from == made_from && oldest == made_beside && read - made_at < bound()) {
        *held_back = true;
        return false;
    }
    made_at = read;
    made_from = from;
    made_beside = oldest;
    XLogFlush(LogStandbySnapshot());
    return true;
}

void sleep_for(long milliseconds) {
    static Rush rush;
    if (milliseconds > unseen_ms && rush.is_on(decoder.place->wal_commits)) {
        linger(linger_us);
        return;
    }
    // Say that we sleep, then look once more: who commits now either sees us asleep, or is seen.
    counters::fall_asleep_on_wal(decoder.place, decoder.worker);
    const std::uint64_t look_at = wal::read_by_now(decoder.source) + bound();
    if (decoder.worker->look_at == 0 || look_at - decoder.worker->look_at > bound() / 4)
        counters::wake_at(decoder.worker, look_at);
    if (milliseconds > unseen_ms && something_has_come()) milliseconds = 0;
    if (milliseconds > unseen_ms && std::exchange(decoder.had_large, false))
        malloc_trim(0);  // by itself the C library keeps what lies below something small that stays
    if (milliseconds > unseen_ms) show(STATE_IDLE, what_is_waited_for());
    sleep_on_latch(milliseconds, "EventbusDecoderMain");
    counters::wake_up(decoder.place, decoder.worker);
}

// Whether what was found may be told by now. Otherwise what that waits for is told where it takes long; its end wakes
// us.
bool may_be_told(long* look_again) {
    if (!compat::standbys_have(wal::read_by_now(decoder.source))) {
        if (decoder.standbys.is_news())
            tell_words(false, "standbys that synchronized_standby_slots names have not received all changes yet",
                       "Fix the standbys, or take them out of synchronized_standby_slots and reload.");
        *look_again = decoder.standbys.look_again();
        return false;
    }
    decoder.standbys = {};
    if (!all_is_visible()) {
        if (decoder.unseen.is_news())
            tell_words(false,
                       psprintf("transaction %u has committed and cannot be seen by others yet: it waits for a "
                                "synchronous standby, and what was committed after it waits with it",
                                wal::first_unseen(decoder.source)),
                       "Fix the standbys that synchronous_standby_names names, or take them out and reload.");
        *look_again = decoder.unseen.look_again();
        return false;
    }
    decoder.unseen = {};
    return true;
}

// Returns in how many milliseconds to look again.
long read_on() {
    if (decoder.unsent) {
        if (long look_again = 0; !may_be_told(&look_again)) {
            tell_more();
            return look_again;
        }
        const bool due = decoder.batch->length > 0 || ms_have_passed(decoder.sent_at, steady_now(), nothing_new_ms);
        if (due) tell_batch();
    }
    flush_wanted();
    const bool starting = wal::state_of(decoder.source) == wal::State::starting;
    const XLogRecPtr before = wal::read_by_now(decoder.source);
    const wal::Position found = wal::found_by_now(decoder.source);
    const TimestampTz since = GetCurrentTimestamp();
    const bool more = wal::step(decoder.source, batch_bytes);
    if (wal::state_of(decoder.source) == wal::State::starting) {
        tell_starting();
        return more                                                            ? 0
               : ms_have_passed(decoder.began_at, steady_now(), look_again_ms) ? 10 * starting_ms
                                                                               : starting_ms;
    }
    const bool news = starting || more != decoder.more || wal::read_by_now(decoder.source) != before ||
                      wal::found_by_now(decoder.source) != found;
    decoder.unsent = decoder.unsent || news;
    decoder.since = since;
    decoder.more = more;
    bool held_back;
    if (more || decoder.batch->length > 0 || make_place(&held_back)) return 0;
    if (decoder.confirm_waits || held_back) return look_again_ms;
    return decoder.unsent ? nothing_new_ms : settings::safety_poll;
}

void decode(void*) {
    decoder.source = wal::open_source(decoder.task.slot, decoder.task.exists, decoder.task.takers,
                                      &decoder.task.failures, decoder.batch, decoder.memory, leave_if_told);
    counters::read_wal(decoder.place, decoder.worker, true);
    decoder.more = true;
    decoder.began_at = steady_now();
    decoder.since = GetCurrentTimestamp();
    if (wal::state_of(decoder.source) == wal::State::running) tell_batch();
    for (;;) {
        leave_if_told();
        CHECK_FOR_INTERRUPTS();
        reload_if_requested();
        wait_for_locks(lock_patience_ms);
        confirm();
        MemoryContextSwitchTo(decoder.memory);
        show(STATE_RUNNING, "reading the WAL");
        if (const long idle_ms = read_on(); idle_ms > 0) sleep_for(idle_ms);
    }
}

void tell_failure(const ErrorData* error) {
    FailedHead head = {};
    head.kind = MessageKind::failed;
    const char* words = error_words(error);
    const char* hint = error->hint != nullptr ? error->hint : "";
    if (decoder.source != nullptr && wal::state_of(decoder.source) == wal::State::running) {
        head.reading = true;
        head.read = wal::read_by_now(decoder.source);
        head.at_once = wal::note_failure(decoder.source, error);
        if (const char* table = wal::failed_table(decoder.source)) {
            words = psprintf("a change of table %s cannot be decoded: %s", table, words);
            hint = psprintf("Fix it, or leave it out by the route option \"tables\": \"-%s\".", table);
        }
    }
    head.failures = decoder.task.failures;
    copy_text(head.words, sizeof head.words, words);
    copy_text(head.hint, sizeof head.hint, hint);
    Oid last = decoder.task.failures.tables != NIL ? llast_oid(decoder.task.failures.tables) : InvalidOid;
    tell(&head, sizeof head, &last, sizeof last);
}

// Of an earlier sender's: it has been told to leave.
void wait_for_predecessor(Oid database, int32 broker_id) {
    while (counters::pid_of_decoder(database, broker_id) != 0) {
        leave_if_told();
        CHECK_FOR_INTERRUPTS();
        linger(linger_us);
    }
}

}  // namespace

}  // namespace eventbus::processes

using namespace eventbus;
using namespace eventbus::processes;

extern "C" PGDLLEXPORT void eventbus_decoder_main(Datum argument) {
    const Oid database = DatumGetObjectId(argument);
    DecoderArguments given;
    memcpy(&given, MyBgworkerEntry->bgw_extra, sizeof given);
    set_up_signals(OnSigterm::finish_round);
    decoder.place = counters::find_database(database, false);
    dsm_segment* segment = dsm_attach(given.channel);
    if (segment == nullptr || decoder.place == nullptr) proc_exit(0);  // the sender has left meanwhile
    decoder.head = static_cast<ChannelHead*>(dsm_segment_address(segment));
    shm_mq_set_sender(queue_of(decoder.head), MyProc);
    decoder.memory = AllocSetContextCreate(TopMemoryContext, "pg_eventbus decoder", ALLOCSET_DEFAULT_SIZES);
    MemoryContextSwitchTo(decoder.memory);
    decoder.queue = shm_mq_attach(queue_of(decoder.head), segment, nullptr);
    wait_for_predecessor(database, given.broker_id);
    decoder.worker = counters::attach_worker(counters::WorkerKind::decoder, database, given.broker_id);
    if (decoder.worker == nullptr) refuse_for_lack_of_room();
    // Before it counts as gone: DROP DATABASE waits for that, and refuses while a slot is in use.
    before_shmem_exit([](int, Datum) { wal::release_slot(); }, 0);
    if (decoder.place->suspended_by != 0) proc_exit(0);
    connect_to(database);
    dsm_pin_mapping(segment);
    // Large transactions wait in temporary files for their commit.
    SetConfigOption("temp_file_limit", "-1", PGC_SUSET, PGC_S_OVERRIDE);
    // Names of types, and values that are names, are written as in a session of the database.
    use_search_path_of_sessions();
    read_task();
    ErrorData* error = survive(decode, nullptr);
    MemoryContextSwitchTo(decoder.memory);
    decoder.failed = true;
    if (error != nullptr) tell_failure(error);
    proc_exit(0);
}
