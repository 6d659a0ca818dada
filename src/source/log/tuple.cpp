// Who calls it: the reader, with the page already unlocked.
// Never: leaves anything outside the chunk's memory context.
#include "source/log/tuple.hpp"

#include <algorithm>
#include <span>

#include "core/headers.hpp"
#include "postgres/attempt.hpp"
#include "postgres/encoding.hpp"
#include "postgres/json_size.hpp"
#include "source/log/payload_tokens.hpp"

extern "C" {
#include "access/detoast.h"
#include "access/tupmacs.h"
#include "utils/jsonb.h"
}

namespace eventbus::log {

namespace {

// Events that trickle in come one a chunk, and a route that stands keeps thousands of them.
constexpr Size first_block = 1024;
constexpr Size largest_block = 64 * 1024;
constexpr Size largest_kept_text = 1024 * 1024;

char* room_for(TupleCopies* copies, Size bytes) {
    Size need = MAXALIGN(bytes);
    if (need > copies->free_bytes) {
        copies->block = std::clamp(2 * copies->block, first_block, largest_block);
        Size block = std::max(need, copies->block);
        copies->free = static_cast<char*>(MemoryContextAllocHuge(copies->memory, block));
        copies->free_bytes = block;
    }
    char* room = copies->free;
    copies->free += need;
    copies->free_bytes -= need;
    return room;
}

// A variable-length column of a copied tuple: detoasted where it must be, never copied where it needn't.
struct varlena* whole(char* column) {
    auto* value = reinterpret_cast<struct varlena*>(column);
    return VARATT_IS_EXTERNAL(value) || VARATT_IS_COMPRESSED(value) ? detoast_attr(value) : value;
}

std::string_view bytes_column(char* column) {
    struct varlena* value = whole(column);
    return {VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)};
}

// Brokers get UTF-8 whatever the database's encoding is.
std::string_view text_column(char* column) {
    return to_utf8(bytes_column(column));
}

// Whose event it is must be known even where a character cannot be had in UTF-8.
std::string_view name_column(char* column, bool* whole_name) {
    std::string_view name = bytes_column(column);
    return database_is_utf8() ? name : to_utf8_or_marks(name, whole_name);
}

// Makes a text with append(buffer) and keeps it, in the database's encoding. One buffer serves all, so that the chunk
// holds no more than the text.
template <class Append>
std::string_view kept_text(TupleCopies* copies, Append&& append) {
    static StringInfoData text = {};
    if (text.data == nullptr) {
        MemoryContext chunk = MemoryContextSwitchTo(TopMemoryContext);
        initStringInfo(&text);
        MemoryContextSwitchTo(chunk);
    }
    resetStringInfo(&text);
    append(&text);
    auto length = static_cast<Size>(text.len);
    char* copy = room_for(copies, length);
    std::memcpy(copy, text.data, length);
    if (length > largest_kept_text) {
        pfree(text.data);
        text.data = nullptr;
    }
    return {copy, length};
}

std::string_view jsonb_text(TupleCopies* copies, const Jsonb* json) {
    return kept_text(copies, [&](StringInfo out) {
        JsonbToCString(out, const_cast<JsonbContainer*>(&json->root), static_cast<int>(VARSIZE(json)));
    });
}

// A container's header wants its alignment, which a short varlena does not have.
Jsonb* aligned_jsonb(char* column) {
    auto* value = reinterpret_cast<struct varlena*>(column);
    return reinterpret_cast<Jsonb*>(VARATT_IS_EXTENDED(value) ? detoast_attr(value) : value);
}

// Of a change: with phrases.
std::string_view change_text(TupleCopies* copies, HeapTupleHeader tuple, char* payload, char* topic) {
    return kept_text(copies, [&](StringInfo out) {
        append_whole(out, bytes_column(payload), {bytes_column(topic), raw_xid(tuple), raw_published_at(tuple)});
    });
}

std::string_view headers_text(TupleCopies* copies, HeapTupleHeader tuple, char* headers, char* captured_by) {
    Jsonb* json = headers != nullptr ? aligned_jsonb(headers) : nullptr;
    // 0.1 counted them as they are stored, which numbers such as 1e131071 can make a gigabyte of text of.
    constexpr Size never_large = 4096;
    if (json != nullptr && VARSIZE(json) > never_large &&
        measure_json(json, {longest_headers, longest_headers_delivered}).bytes > longest_headers_delivered)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the headers are larger than 1 MB")));
    if (captured_by == nullptr) return json != nullptr ? jsonb_text(copies, json) : std::string_view();
    struct varlena* user = whole(captured_by);
    return kept_text(copies, [&](StringInfo out) {
        append_headers(out, json, raw_xid(tuple), {VARDATA_ANY(user), VARSIZE_ANY_EXHDR(user)});
    });
}

// Finds the columns from topic on, before `end`; nullptr where one is null.
void find_columns(HeapTupleHeader tuple, char** columns, int end = column_count) {
    auto* at = reinterpret_cast<char*>(tuple) + tuple->t_hoff;
    Size offset = 3 * sizeof(int64);
    for (int i = column_topic; i < end; ++i) {
        columns[i] = nullptr;
        if (i >= HeapTupleHeaderGetNatts(tuple)) continue;
        if ((tuple->t_infomask & HEAP_HASNULL) != 0 && att_isnull(i, tuple->t_bits)) continue;
        offset = att_align_pointer(offset, TYPALIGN_INT, -1, at + offset);
        columns[i] = at + offset;
        offset += VARSIZE_ANY(at + offset);
    }
}

}  // namespace

std::string_view raw_topic(HeapTupleHeader tuple) {
    char* columns[column_count];
    find_columns(tuple, columns, column_key);
    return columns[column_topic] != nullptr ? bytes_column(columns[column_topic]) : std::string_view();
}

// Id, topic and key. *whole_names: no character of them is missing.
static Event heading(HeapTupleHeader tuple, char** columns, bool* whole_names) {
    find_columns(tuple, columns);
    Event event;
    bool whole_topic = true;
    bool whole_key = true;
    event.id = EventId::of_log(raw_id(tuple));
    event.topic = name_column(columns[column_topic], &whole_topic);
    if (columns[column_key] != nullptr) event.key = name_column(columns[column_key], &whole_key);
    *whole_names = whole_topic && whole_key;
    return event;
}

Event heading_of(HeapTupleHeader tuple) {
    char* columns[column_count];
    bool whole_names;
    return heading(tuple, columns, &whole_names);
}

void copy_tuple(TupleCopies* copies, HeapTuple tuple, const Position& at) {
    char* room = room_for(copies, tuple->t_len);
    if (copies->count == copies->room) {
        copies->room = copies->room == 0 ? 8 : copies->room * 2;
        Size bytes = sizeof(TupleCopy) * copies->room;
        copies->items = static_cast<TupleCopy*>(copies->items == nullptr ? MemoryContextAlloc(copies->memory, bytes)
                                                                         : repalloc(copies->items, bytes));
    }
    std::memcpy(room, tuple->t_data, tuple->t_len);
    copies->items[copies->count++] = {at, tuple->t_len, reinterpret_cast<HeapTupleHeader>(room)};
}

namespace {

// A chunk while it is made.
struct Making {
    TupleCopies* copies;
    const Filter* filter;
    Size most_bytes;
    Position* next;
    Chunk* chunk;
    uint32 at;  // the copy that is being looked at
    bool full;
};

bool is_wanted(const Making* making, const Event& event) {
    const Filter& filter = *making->filter;
    const TupleCopy& copy = making->copies->items[making->at];
    return filter.wanted == nullptr || filter.wanted(filter.context, event, raw_xid(copy.data), copy.at);
}

std::string_view payload_text(TupleCopies* copies, HeapTupleHeader tuple, char** columns) {
    if (columns[column_json] != nullptr) {
        Jsonb* json = aligned_jsonb(columns[column_json]);
        std::string_view text = jsonb_text(copies, json);
        if (reinterpret_cast<char*>(json) != columns[column_json]) pfree(json);
        return text;
    }
    if (columns[column_content_type] != nullptr) return bytes_column(columns[column_text]);
    return change_text(copies, tuple, columns[column_text], columns[column_topic]);
}

void add(Making* making, const Event& event) {
    new (&making->chunk->events[making->chunk->count++]) Event(event);
    making->chunk->bytes += event.payload.size() + event.headers.size() + making->copies->items[making->at].length;
}

// Makes events of the copies, one after the other, until one fails.
void make_events(Making* making) {
    TupleCopies* copies = making->copies;
    for (; making->at < copies->count; ++making->at) {
        if (making->chunk->bytes >= making->most_bytes) {
            *making->next = copies->items[making->at].at;
            making->full = true;
            return;
        }
        HeapTupleHeader tuple = copies->items[making->at].data;
        char* columns[column_count];
        bool whole_names;
        Event event = heading(tuple, columns, &whole_names);
        if (!is_wanted(making, event)) continue;
        if (!whole_names) {
            (void)text_column(columns[column_topic]);
            if (columns[column_key] != nullptr) (void)text_column(columns[column_key]);
        }
        event.published_at = to_unix_us(raw_published_at(tuple));
        event.headers = to_utf8(headers_text(copies, tuple, columns[column_headers], columns[column_captured_by]));
        event.content_type =
            columns[column_content_type] != nullptr ? text_column(columns[column_content_type]) : "application/json";
        event.is_bytes = columns[column_bytes] != nullptr;
        event.payload =
            event.is_bytes ? bytes_column(columns[column_bytes]) : to_utf8(payload_text(copies, tuple, columns));
        add(making, event);
    }
}

// What can be had of a tuple that could not be made an event: each part for itself, the payload as bytes.
void make_remains(Making* making, const ErrorData* error) {
    TupleCopies* copies = making->copies;
    HeapTupleHeader tuple = copies->items[making->at].data;
    char* columns[column_count] = {};
    Event event;
    event.id = EventId::of_log(raw_id(tuple));
    (void)attempt([&] {
        bool whole_names;
        event = heading(tuple, columns, &whole_names);
    });
    event.error = to_utf8_or_marks(psprintf("the event cannot be read from the log: %s", error_words(error)));
    if (!is_wanted(making, event)) return;
    event.published_at = to_unix_us(raw_published_at(tuple));
    event.content_type = "application/octet-stream";
    event.is_bytes = true;
    (void)attempt([&] {
        if (columns[column_content_type] != nullptr)
            event.content_type = text_column(columns[column_content_type]);
        else if (columns[column_bytes] == nullptr)
            event.content_type = "application/json";
    });
    (void)attempt([&] {
        event.headers = to_utf8(headers_text(copies, tuple, columns[column_headers], columns[column_captured_by]));
    });
    (void)attempt([&] {
        if (columns[column_bytes] != nullptr)
            event.payload = bytes_column(columns[column_bytes]);
        else if (columns[column_json] != nullptr || columns[column_text] != nullptr)
            event.payload = payload_text(copies, tuple, columns);
    });
    add(making, event);
}

}  // namespace

Chunk* make_chunk(TupleCopies* copies, const Filter& filter, Size most_bytes, Position* next) {
    constexpr int most_tries = 3;  // of a disk that fails, at one event
    MemoryContext caller = MemoryContextSwitchTo(copies->memory);
    auto* chunk = static_cast<Chunk*>(palloc0(sizeof(Chunk)));
    chunk->memory = copies->memory;
    chunk->free = [](source::Chunk* of) { MemoryContextDelete(static_cast<Chunk*>(of)->memory); };
    chunk->events = static_cast<Event*>(palloc(sizeof(Event) * (copies->count + 1)));
    if (copies->count > 0) chunk->generation = copies->items[0].at.generation;

    Making making = {copies, &filter, most_bytes, next, chunk, 0, false};
    uint32 tried_at = copies->count;
    for (int tries = 0; making.at < copies->count && !making.full;) {
        ErrorData* error = attempt([&] { make_events(&making); });
        if (error == nullptr) break;
        tries = making.at == tried_at ? tries + 1 : 1;
        tried_at = making.at;
        if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_SYSTEM_ERROR && tries < most_tries) continue;
        make_remains(&making, error);
        FreeErrorData(error);
        ++making.at;
    }

    const std::span events(chunk->events, chunk->count);
    if (!std::ranges::is_sorted(events, {}, &Event::id)) std::ranges::sort(events, {}, &Event::id);
    MemoryContextSwitchTo(caller);
    return chunk;
}

}  // namespace eventbus::log
