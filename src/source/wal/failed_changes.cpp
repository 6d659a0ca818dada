// What it is: changes of rows and what becomes of errors in them: a change that fails is given as what is left of it.
// Who calls it: the callbacks in decode.cpp; messages.cpp; the source, where PostgreSQL's own decoding fails.
// Never: lets a change be given to some of its takers and fail for others: all is made before anything is given.
//
// A subtransaction around each conversion would cost every change something. So only the first changes of a table are
// made in one each: what is wrong with a table or a type shows there. A later one that fails ends the decoding context,
// and the pass begins again. Once one has failed, all changes of that table are made in subtransactions. So what is
// read is read twice at most, however many of them fail.
#include "postgres/attempt.hpp"
#include "postgres/encoding.hpp"
#include "source/wal/events.hpp"

extern "C" {
#include "catalog/pg_class.h"
#include "utils/lsyscache.h"
}

namespace eventbus::wal {

namespace {

constexpr int enough_attempts = 3;
constexpr int enough_ms = 60000;  // of an error that should pass

bool is_enough(int attempts, SteadyTime since, int sqlstate) {
    return attempts >= enough_attempts && (!is_passing(sqlstate) || ms_have_passed(since, steady_now(), enough_ms));
}

// A shortage that never ends may be the change's own. What somebody else is about to end, a lock too, never is.
bool may_be_its_own(int sqlstate) {
    const int category = ERRCODE_TO_CATEGORY(sqlstate);
    return category != ERRCODE_TRANSACTION_ROLLBACK && category != ERRCODE_OPERATOR_INTERVENTION &&
           sqlstate != ERRCODE_LOCK_NOT_AVAILABLE;
}

bool is_its_own(const Source* source, const ErrorData* error) {
    if (!is_passing(error->sqlerrcode)) return true;
    return source->failures->condemned && source->failures->change == source->change &&
           may_be_its_own(error->sqlerrcode);
}

// What is known of a change that could not be made an event: its topic and key, if it came so far.
void make_remains(Source* source, const Shape* shape, Relation relation, decoder::Operation operation,
                  const ErrorData* error) {
    Made* made = source->made;
    const char* schema = source->table != nullptr ? source->table->schema : nullptr;
    const char* table = source->table != nullptr ? source->table->table : RelationGetRelationName(relation);
    if (made->wanted == nullptr)
        (void)attempt([&] {
            schema = get_namespace_name(RelationGetNamespace(relation));
            made->wanted = takers_of_table(source, shape, schema, table, operation, &made->event.topic);
        });
    made->event.payload = {};
    made->event.is_bytes = true;
    made->event.content_type = "application/json";
    made->event.error = to_utf8_or_marks(psprintf("a change of table %s.%s cannot be decoded: %s",
                                                  schema != nullptr ? schema : "?", table, error_words(error)));
    made->stamped = false;
}

// How many changes of a table this process has seen, as far as it remembers: not of all tables that ever were.
int count_change(Oid table) {
    constexpr long most_tables = 10000;
    struct Seen {
        Oid table;
        int changes;
    };
    static HTAB* tables = nullptr;
    static Seen* last = nullptr;
    if (tables != nullptr && hash_get_num_entries(tables) > most_tables) {
        hash_destroy(tables);
        tables = nullptr;
        last = nullptr;
    }
    if (tables == nullptr) {
        HASHCTL control = {};
        control.keysize = sizeof(Oid);
        control.entrysize = sizeof(Seen);
        control.hcxt = TopMemoryContext;
        tables = hash_create("pg_eventbus tables seen", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
    }
    if (last == nullptr || last->table != table) {
        bool known;
        last = static_cast<Seen*>(hash_search(tables, &table, HASH_ENTER, &known));
        if (!known) last->changes = 0;
    }
    if (last->changes < INT_MAX) ++last->changes;
    return last->changes;
}

// Whether the change is made in a subtransaction.
bool wants_care(const Source* source, Oid table) {
    constexpr int first_ones = 100;
    if (count_change(table) <= first_ones) return true;
    return source->failures->tables != NIL && list_member_oid(source->failures->tables, table);
}

void remember_table(Failures* failures, Oid table) {
    if (list_member_oid(failures->tables, table)) return;
    MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
    failures->tables = lappend_oid(failures->tables, table);
    MemoryContextSwitchTo(before);
}

// What a large event has taken is not kept for the next ones.
void let_go_of_large(StringInfo text) {
    constexpr int most_kept = 1024 * 1024;
    if (text->maxlen <= most_kept) return;
    MemoryContext before = MemoryContextSwitchTo(GetMemoryChunkContext(text->data));
    pfree(text->data);
    initStringInfo(text);
    MemoryContextSwitchTo(before);
}

// Makes the change an event for one shape; false where it is none.
bool look(Source* source, Shape* shape, Relation relation, decoder::Operation operation, bool careful,
          void (*show)(void*), void* argument) {
    source->table = nullptr;
    source->looked_at = RelationGetRelid(relation);
    if (!careful) {
        show(argument);
    } else {
        MemoryContext before = MemoryContextSwitchTo(source->scratch);
        if (ErrorData* error = attempt_anything(show, argument)) {
            if (!is_its_own(source, error)) ReThrowError(error);
            remember_table(source->failures, RelationGetRelid(relation));
            make_remains(source, shape, relation, operation, error);
            MemoryContextReset(shape->decoder.scratch);
            source->made->done = true;
        }
        MemoryContextSwitchTo(before);
    }
    bool done = source->made->done;
    forget_change(source);
    return done;
}

// Stands for messages among the tables of which one has failed: it has no changes that are shown.
constexpr Oid all_messages = RelationRelationId;

bool note_change(Source* source, const ErrorData* error) {
    Failures* failures = source->failures;
    if (!list_member_oid(failures->tables, source->looked_at)) {
        remember_table(failures, source->looked_at);
        return true;
    }
    return note_attempt(failures, source->change, error->sqlerrcode);
}

// PostgreSQL itself has failed, at a record. That of a commit says whose changes they are.
bool note_record(Source* source, const ErrorData* error) {
    Failures* failures = source->failures;
    if (is_passing(error->sqlerrcode) || ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_SYSTEM_ERROR) return false;
    if (failures->record != source->decoding) {
        failures->record = source->decoding;
        failures->record_attempts = 0;
        failures->record_since = steady_now();
    }
    if (!is_enough(++failures->record_attempts, failures->record_since, error->sqlerrcode)) return false;
    if (is_commit(source->context->reader)) {
        failures->given_up = source->decoding;
        copy_text(failures->words, sizeof failures->words, error_words(error));
        return true;
    }
    bool news = !failures->unstreamed;
    failures->unstreamed = true;
    return news;
}

}  // namespace

void forget_change(Source* source) {
    source->looked_at = InvalidOid;
    source->table = nullptr;
    source->made = nullptr;
    source->context->output_plugin_private = source->plugins;
}

void show_change(Source* source, XLogRecPtr lsn, Relation relation, decoder::Operation operation, bool replicated,
                 void (*show)(void*), void* argument) {
    Found found(source, lsn);
    replicated = replicated || (source->streaming == nullptr && source->replicated);
    source->change = found.change();
    bool careful = wants_care(source, RelationGetRelid(relation));
    ListCell* cell;
    foreach (cell, source->shapes) {
        auto* shape = static_cast<Shape*>(lfirst(cell));
        if (replicated && shape->selection.local_only) continue;
        Made made = {};
        source->made = &made;
        shape->decoder.context = source->context;
        source->context->output_plugin_private = &shape->decoder;
        if (!look(source, shape, relation, operation, careful, show, argument)) continue;
        found.stamped(made.stamped);
        for (int i = 0; i < shape->taker_count; ++i)
            if (made.wanted == nullptr || made.wanted[i]) found.give(shape->takers[i], &made.event);
        MemoryContextReset(source->scratch);
    }
    found.done();
    let_go_of_large(&source->payload);
}

bool messages_want_care(const Source* source) {
    return source->failures->tables != NIL && list_member_oid(source->failures->tables, all_messages);
}

const char* make_message(Source* source, void (*make)(void*), void* argument) {
    const char* words = nullptr;
    source->looked_at = all_messages;
    if (!messages_want_care(source)) {
        make(argument);
    } else if (ErrorData* error = attempt_anything(make, argument)) {
        if (!is_its_own(source, error)) ReThrowError(error);
        words = error_words(error);
    }
    source->looked_at = InvalidOid;
    return words;
}

bool note_attempt(Failures* failures, int64 change, int sqlstate) {
    if (failures->change != change) {
        failures->change = change;
        failures->attempts = 0;
        failures->since = steady_now();
        failures->condemned = false;
    }
    failures->condemned = is_enough(++failures->attempts, failures->since, sqlstate) && may_be_its_own(sqlstate);
    return failures->condemned;
}

bool note_failure(Source* source, const ErrorData* error) {
    if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION) return false;
    if (OidIsValid(source->looked_at)) return note_change(source, error);
    if (source->giving != 0 && ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES)
        return note_attempt(source->failures, source->giving, error->sqlerrcode);
    return source->decoding != InvalidXLogRecPtr && note_record(source, error);
}

void give_up_transaction(Source* source, XLogRecPtr commit) {
    XLogReaderState* reader = source->context->reader;
    xl_xact_parsed_commit parsed;
    ParseCommitRecord(XLogRecGetInfo(reader), reinterpret_cast<xl_xact_commit*>(XLogRecGetData(reader)), &parsed);
    TransactionId xid = is_commit_prepared(reader) ? parsed.twophase_xid : XLogRecGetXid(reader);
    MemoryContext before = MemoryContextSwitchTo(source->scratch);
    begin_transaction(source, xid, commit, parsed.xact_time);
    Event event;
    event.published_at = to_unix_us(parsed.xact_time);
    event.content_type = "application/json";
    event.is_bytes = true;
    event.error = shown_text(psprintf("transaction %u cannot be decoded, and no further change of it is delivered: %s",
                                      xid, source->failures->words));
    for (int i = 0; i < list_length(source->takers); ++i) {
        auto* taker = static_cast<Taker*>(list_nth(source->takers, i));
        event.id = {commit, taker->from.lsn == commit ? taker->from.number + 1 : 1};
        give(source, i, event);
    }
    MemoryContextSwitchTo(before);
    MemoryContextReset(source->scratch);
}

}  // namespace eventbus::wal
