// What it is: dead letters as they are stored, each as whole as the table takes it.
// Who calls it: the sender.
// Never: fails for what is one letter's own.
#include <algorithm>

#include "catalog/dead_letters.hpp"
#include "core/headers.hpp"
#include "postgres/attempt.hpp"
#include "postgres/encoding.hpp"
#include "postgres/json_size.hpp"
#include "postgres/query.hpp"

extern "C" {
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
}

namespace eventbus::catalog {

namespace {

// The guest's UTF-8 in the database's encoding.
Argument stored_text(std::string_view utf8, bool* whole) {
    bool is_whole;
    Argument stored = Argument::of(static_cast<const char*>(from_utf8(utf8, &is_whole)));
    *whole = *whole && is_whole;
    return stored;
}

// What a broker says may be anything.
const char* stored_error(std::string_view words) {
    char* text = from_utf8(words);
    for (char* c = text; *c != '\0'; ++c)
        if (static_cast<unsigned char>(*c) < 0x20 && *c != '\n' && *c != '\t') *c = '?';
    return text;
}

Argument stored_bytes(std::string_view bytes) {
    auto* copy = static_cast<bytea*>(palloc(bytes.size() + VARHDRSZ));
    SET_VARSIZE(copy, bytes.size() + VARHDRSZ);
    bytes.copy(VARDATA(copy), bytes.size());
    return Argument::of_bytes(copy);
}

constexpr Oid column_types[] = {INT4OID, LSNOID,  INT8OID,  TEXTOID,        TEXTOID, JSONBOID, TEXTOID,
                                TEXTOID, TEXTOID, BYTEAOID, TIMESTAMPTZOID, TEXTOID, INT4OID,  BOOLOID};
constexpr int column_count = lengthof(column_types);

// How much of a letter the table gets, and of one that it does not take whole: why.
struct Kept {
    bool jsonb;  // headers, where they can be one
    bool headers;
    bool payload;
    const char* without;
    const char* why;
};
constexpr Kept all = {true, true, true, nullptr, nullptr};
constexpr Kept less[] = {{false, true, true, nullptr, nullptr},
                         {true, true, false, "payload", nullptr},
                         {false, true, false, "payload", nullptr},
                         {false, false, false, "payload and headers", nullptr}};

// JSON without a character that another encoding than UTF-8 may lack.
const char* escaped_json(std::string_view utf8, bool* whole) {
    StringInfoData out;
    initStringInfo(&out);
    for (Size at = 0; at < utf8.size();) {
        const auto* character = reinterpret_cast<const unsigned char*>(utf8.data() + at);
        const int length = pg_utf_mblen(character);
        if (length == 1 && !IS_HIGHBIT_SET(*character)) {
            appendStringInfoChar(&out, utf8[at++]);
            continue;
        }
        if (static_cast<Size>(length) > utf8.size() - at || !pg_utf8_islegal(character, length)) {
            appendStringInfoChar(&out, '?');
            *whole = false;
            ++at;
            continue;
        }
        const pg_wchar code = utf8_to_unicode(character);
        if (code > 0xFFFF)
            appendStringInfo(&out, "\\u%04x\\u%04x", 0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF));
        else
            appendStringInfo(&out, "\\u%04x", code);
        at += static_cast<Size>(length);
    }
    return out.data;
}

// Headers are JSON, and need be no jsonb: a NUL within a text, a number that is too large, or one such as 1e131071 so
// often that nobody could read them. Those are kept as the text that they are. Errors where they are no jsonb.
void store_headers(std::string_view headers, bool as_jsonb, Argument* jsonb, Argument* text, bool* whole) {
    *jsonb = Argument::null_of(JSONBOID);
    *text = Argument::null_of(TEXTOID);
    if (headers.empty()) return;
    bool has_all_characters;
    const char* stored = from_utf8(headers, &has_all_characters);
    if (!has_all_characters) stored = escaped_json(headers, whole);
    if (as_jsonb) {
        constexpr JsonMeasures most = {deepest_headers, longest_headers_delivered};
        Datum made = DirectFunctionCall1(jsonb_in, CStringGetDatum(stored));
        const JsonMeasures found = measure_json(DatumGetJsonbP(made), most);
        if (found.depth <= most.depth && found.bytes <= most.bytes) *jsonb = {JSONBOID, made, false};
    }
    if (jsonb->null) *text = Argument::of(stored);
}

// What the table holds of a letter.
void fill(Argument* columns, const DeadLetter& letter, const Kept& kept) {
    const Event& event = *letter.event;
    bool whole = event.error.empty() && kept.headers && kept.payload;
    bool has_payload = kept.payload && (event.error.empty() || !event.payload.empty());
    Argument topic = stored_text(event.topic.empty() ? "?" : event.topic, &whole);
    Argument key = event.key ? stored_text(*event.key, &whole) : Argument::null_of(TEXTOID);
    Argument type = stored_text(event.content_type, &whole);
    Argument headers;
    Argument headers_text;
    store_headers(kept.headers ? event.headers : std::string_view(), kept.jsonb, &headers, &headers_text, &whole);
    // A text that the database has no characters for is kept as the bytes that it is.
    bool is_text = has_payload && !event.is_bytes;
    Argument text = is_text ? stored_text(event.payload, &is_text) : Argument::null_of(TEXTOID);
    if (!is_text) text = Argument::null_of(TEXTOID);
    Argument bytes = has_payload && !is_text ? stored_bytes(event.payload) : Argument::null_of(BYTEAOID);
    const char* error = stored_error(letter.error);
    if (kept.without != nullptr)
        error = psprintf("%s (without %s, which could not be stored: %s)", error, kept.without, kept.why);
    const Argument made[column_count] = {
        Argument::of(letter.route_id),
        {LSNOID, LSNGetDatum(event.id.lsn), false},
        Argument::of(event.id.number),
        topic,
        key,
        headers,
        headers_text,
        type,
        text,
        bytes,
        Argument{TIMESTAMPTZOID, TimestampTzGetDatum(from_unix_us(event.published_at)), false},
        Argument::of(error),
        Argument::of(letter.attempts),
        Argument::of(!whole)};
    std::copy(made, made + column_count, columns);
}

// A letter that the table has already: its event was sent again, or redelivered, and refused again.
enum class Known : std::uint8_t { none, some };

const char* const insert_sql =
    "INSERT INTO eventbus.dead_letter_store AS d (route_id, lsn, number, topic, key, headers, headers_text, "
    "content_type, "
    "payload_text, payload_bytes, published_at, error, attempts, failed_at, incomplete) "
    "SELECT n.route_id, n.lsn, n.number, n.topic, n.key, n.headers, n.headers_text, n.content_type, n.payload_text, "
    "n.payload_bytes, n.published_at, n.error, n.attempts, pg_catalog.clock_timestamp(), n.incomplete FROM ROWS FROM "
    "(pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), "
    "pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), "
    "pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11), "
    "pg_catalog.unnest($12), pg_catalog.unnest($13), pg_catalog.unnest($14)) AS n "
    "(route_id, lsn, number, topic, key, headers, headers_text, content_type, payload_text, payload_bytes, "
    "published_at, error, attempts, incomplete) WHERE n.route_id = ANY (ARRAY("
    "SELECT id FROM eventbus.route_config WHERE id = ANY ($1) FOR KEY SHARE))";
const char* const update_sql =
    " ON CONFLICT (route_id, lsn, number) DO UPDATE SET error = excluded.error, attempts = "
    "LEAST(d.attempts::bigint + excluded.attempts, 2147483647)::integer, failed_at = excluded.failed_at, "
    "requeued = false, incomplete = d.incomplete OR excluded.incomplete";

// All in one statement, for there may be thousands of them: their routes are locked once, and the foreign key's check
// of each row, as dear as storing it, is disabled. So dear is the check for known ones: it is made where there are
// some.
void insert(const DeadLetter* letters, int count, Known known, const Kept& kept) {
    static Prepared statements[2];
    Prepared& statement = statements[known == Known::some];
    if (statement.sql == nullptr)
        statement.sql =
            MemoryContextStrdup(TopMemoryContext, psprintf("%s%s", insert_sql, known == Known::some ? update_sql : ""));
    auto* cells = static_cast<Argument*>(palloc(sizeof(Argument) * static_cast<Size>(count) * column_count));
    auto* values = static_cast<Datum*>(palloc(sizeof(Datum) * static_cast<Size>(count)));
    auto* nulls = static_cast<bool*>(palloc(sizeof(bool) * static_cast<Size>(count)));
    for (int i = 0; i < count; ++i) fill(cells + i * column_count, letters[i], kept);
    Argument arrays[column_count];
    for (int column = 0; column < column_count; ++column) {
        Oid type = column_types[column];
        int16 length;
        bool by_value;
        char alignment;
        get_typlenbyvalalign(type, &length, &by_value, &alignment);
        for (int i = 0; i < count; ++i) {
            values[i] = cells[i * column_count + column].value;
            nulls[i] = cells[i * column_count + column].null;
        }
        int begin = 1;
        arrays[column] = {
            get_array_type(type),
            PointerGetDatum(construct_md_array(values, nulls, 1, &count, &begin, type, length, by_value, alignment)),
            false};
        statement.types[column] = arrays[column].type;
    }
    run_prepared(statement, arrays, column_count);
}

constexpr Size large_letter = 1024 * 1024;

Size size_of(const DeadLetter& letter) {
    return letter.event->payload.size() + letter.event->headers.size();
}

bool is_passing_but_memory(int sqlstate) {
    return is_passing(sqlstate) && sqlstate != ERRCODE_OUT_OF_MEMORY;
}

// An error that passes is thrown on.
ErrorData* try_to_insert(const DeadLetter* letters, int count, Known known, const Kept& kept, bool short_of_memory) {
    MemoryContext own = AllocSetContextCreate(CurrentMemoryContext, "pg_eventbus dead letters", ALLOCSET_SMALL_SIZES);
    ErrorData* error = attempt(
        [&] {
            MemoryContext before = MemoryContextSwitchTo(own);
            insert(letters, count, known, kept);
            MemoryContextSwitchTo(before);
        },
        short_of_memory ? is_passing_but_memory : is_passing);
    MemoryContextDelete(own);
    return error;
}

// As much of it as the table takes.
void insert_alone(const DeadLetter& letter, bool spare_memory) {
    const bool short_of_memory = spare_memory && size_of(letter) >= large_letter;
    ErrorData* error = try_to_insert(&letter, 1, Known::some, all, short_of_memory);
    for (Kept kept : less) {
        if (error == nullptr) return;
        kept.why = error_words(error);
        if (kept.payload || kept.headers)
            error = try_to_insert(&letter, 1, Known::some, kept, short_of_memory);
        else
            insert(&letter, 1, Known::some, kept);
    }
}

}  // namespace

void store_dead_letters(const DeadLetter* letters, int count, bool spare_memory) {
    constexpr int together = 1000;
    constexpr Size most_bytes = 4 * 1024 * 1024;
    MemoryContext scratch =
        AllocSetContextCreate(CurrentMemoryContext, "pg_eventbus dead letters", ALLOCSET_SMALL_SIZES);
    MemoryContext caller = MemoryContextSwitchTo(scratch);
    for (int first = 0, end = 0; first < count; first = end) {
        Size bytes = 0;
        for (; end < count && end < first + together && (end == first || bytes < most_bytes); ++end)
            bytes += size_of(letters[end]);
        const bool short_of_memory = spare_memory && bytes >= large_letter;
        ErrorData* error = try_to_insert(letters + first, end - first, Known::none, all, short_of_memory);
        if (error != nullptr && error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION)
            error = try_to_insert(letters + first, end - first, Known::some, all, short_of_memory);
        for (int i = first; error != nullptr && i < end; ++i) insert_alone(letters[i], spare_memory);
        MemoryContextReset(scratch);
    }
    MemoryContextSwitchTo(caller);
    MemoryContextDelete(scratch);
}

}  // namespace eventbus::catalog
