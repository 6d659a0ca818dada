#include "source/log/unrouted.hpp"

#include <algorithm>

#include "postgres/attempt.hpp"
#include "postgres/encoding.hpp"
#include "postgres/query.hpp"

extern "C" {
#include "access/transam.h"
#include "common/hashfn.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
}

namespace eventbus::log {

namespace {

constexpr int most_topics = 100;  // said in the comment of eventbus.unrouted
constexpr Size longest_topic = 255;
constexpr int slot_count = 256;

struct Counted {
    const char* topic;
    Size length;
    int64 events;
    TimestampTz first_at;
    TimestampTz last_at;
};

constexpr int not_looked_for = -1;
constexpr int left_out = -2;

// What is known of a topic, until another one of the same hash comes.
struct Slot {
    int64 taken_from;
    int at;  // among those counted
    uint8 length;
    char topic[longest_topic];
};

}  // namespace

struct Tally {
    Takers takers;
    int64 after;
    MemoryContext memory;
    MemoryContext words;  // of one topic in UTF-8
    int count;
    Counted counted[most_topics];
    Slot slots[slot_count];
};

namespace {

int64 ask(Tally* tally, std::string_view topic) {
    if (database_is_utf8()) return tally->takers.taken_from(tally->takers.context, topic);
    MemoryContext before = MemoryContextSwitchTo(tally->words);
    const int64 from = tally->takers.taken_from(tally->takers.context, to_utf8_or_marks(topic));
    MemoryContextSwitchTo(before);
    MemoryContextReset(tally->words);
    return from;
}

Slot* slot_of(Tally* tally, std::string_view topic) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(topic.data());
    Slot* slot = &tally->slots[hash_bytes(bytes, static_cast<int>(topic.size())) % slot_count];
    if (std::string_view(slot->topic, slot->length) == topic) return slot;
    slot->taken_from = ask(tally, topic);
    slot->at = not_looked_for;
    slot->length = static_cast<uint8>(topic.size());
    memcpy(slot->topic, topic.data(), topic.size());
    return slot;
}

int place_of(Tally* tally, std::string_view topic) {
    Counted* end = tally->counted + tally->count;
    Counted* found = std::find_if(tally->counted, end, [&](const Counted& counted) {
        return std::string_view(counted.topic, counted.length) == topic;
    });
    if (found == end) {
        // Who comes backwards has seen the last topics by then.
        if (tally->count == most_topics) return left_out;
        auto* copy = static_cast<char*>(MemoryContextAlloc(tally->memory, topic.size()));
        memcpy(copy, topic.data(), topic.size());
        *found = {copy, topic.size(), 0, PG_INT64_MAX, PG_INT64_MIN};
        ++tally->count;
    }
    return static_cast<int>(found - tally->counted);
}

// Of a finished transaction; a subtransaction of one that has committed may have been rolled back.
bool is_committed(HeapTupleHeader tuple) {
    if (HeapTupleHeaderXminCommitted(tuple)) return true;
    return !HeapTupleHeaderXminInvalid(tuple) && TransactionIdDidCommit(HeapTupleHeaderGetXmin(tuple));
}

Oid table() {
    return get_relname_relid("unrouted_store", relations().schema);
}

// A column of what was counted, as an array.
template <class Value>
Argument column(const Tally* tally, Oid array, Oid element, int16 length, bool by_value, Value&& value) {
    Datum values[most_topics];
    for (int i = 0; i < tally->count; ++i) values[i] = value(tally->counted[i]);
    const char align = length < 0 ? TYPALIGN_INT : TYPALIGN_DOUBLE;
    return {array, PointerGetDatum(construct_array(values, tally->count, element, length, by_value, align)), false};
}

void add(const Tally* tally) {
    auto topic = [](const Counted& counted) {
        return PointerGetDatum(cstring_to_text_with_len(counted.topic, static_cast<int>(counted.length)));
    };
    auto time = [](TimestampTz Counted::*at) {
        return [at](const Counted& counted) { return TimestampTzGetDatum(counted.*at); };
    };
    constexpr int16 wide = sizeof(int64);
    run_query(
        "INSERT INTO eventbus.unrouted_store AS u (topic, events, first_at, last_at) "
        "SELECT * FROM unnest($1, $2, $3, $4) ON CONFLICT (topic) DO UPDATE SET events = u.events + excluded.events, "
        "first_at = least(u.first_at, excluded.first_at), last_at = greatest(u.last_at, excluded.last_at)",
        {column(tally, TEXTARRAYOID, TEXTOID, -1, false, topic),
         column(tally, INT8ARRAYOID, INT8OID, wide, FLOAT8PASSBYVAL,
                [](const Counted& counted) { return Int64GetDatum(counted.events); }),
         column(tally, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, wide, FLOAT8PASSBYVAL, time(&Counted::first_at)),
         column(tally, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, wide, FLOAT8PASSBYVAL, time(&Counted::last_at))});
    run_query(
        "DELETE FROM eventbus.unrouted_store WHERE topic IN "
        "(SELECT topic FROM eventbus.unrouted_store ORDER BY last_at DESC, topic OFFSET $1)",
        {Argument::of(most_topics)});
}

}  // namespace

Tally* begin_tally(const Takers& takers, int64 after) {
    if (takers.everything_from <= after + 1) return nullptr;
    auto* tally = static_cast<Tally*>(palloc0(sizeof(Tally)));
    tally->takers = takers;
    tally->after = after;
    tally->memory = CurrentMemoryContext;
    tally->words = AllocSetContextCreate(CurrentMemoryContext, "pg_eventbus topic", ALLOCSET_SMALL_SIZES);
    return tally;
}

void note(Tally* tally, HeapTupleHeader tuple) {
    const int64 id = raw_id(tuple);
    if (id <= tally->after || id >= tally->takers.everything_from) return;
    const std::string_view topic = raw_topic(tuple);
    if (topic.empty() || topic.size() > longest_topic) return;
    Slot* slot = slot_of(tally, topic);
    if (id >= slot->taken_from || !is_committed(tuple)) return;
    if (slot->at == not_looked_for) slot->at = place_of(tally, topic);
    if (slot->at == left_out) return;
    Counted& counted = tally->counted[slot->at];
    const TimestampTz at = raw_published_at(tuple);
    ++counted.events;
    counted.first_at = std::min(counted.first_at, at);
    counted.last_at = std::max(counted.last_at, at);
}

bool may_write(const Tally* tally) {
    if (tally == nullptr || tally->count == 0) return false;
    const Oid relation = table();
    // Nobody else writes then, so that no row has to be waited for.
    return OidIsValid(relation) && lock_if_free(relation, ExclusiveLock);
}

void write(const Tally* tally) {
    static bool told = false;
    const ErrorData* error = attempt([&] { add(tally); }, [](int) { return false; });
    if (error != nullptr && !told)
        ereport(WARNING,
                (errmsg("pg_eventbus: events that no route took cannot be counted: %s", error_words(error)),
                 errdetail("They leave the log all the same."), errhint("Look at the table eventbus.unrouted_store.")));
    told = error != nullptr;
}

}  // namespace eventbus::log
