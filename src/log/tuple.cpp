// What it is: see tuple.hpp.
// Who calls it: the reader, with the page already unlocked.
// Never: leaves anything outside the chunk's memory context.
#include "log/tuple.hpp"

#include <algorithm>

#include "log/phrases.hpp"

extern "C" {
#include "access/detoast.h"
#include "access/tupmacs.h"
#include "mb/pg_wchar.h"
#include "utils/jsonb.h"
}

namespace eventbus::log {

namespace {

constexpr Size block_bytes = 64 * 1024;
constexpr Size largest_kept_text = 1024 * 1024;

char* room_for(TupleCopies* copies, Size bytes) {
    Size need = MAXALIGN(bytes);
    if (need > copies->free_bytes) {
        Size block = std::max(need, block_bytes);
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

// Brokers get UTF-8 whatever the database's encoding is.
std::string_view as_utf8(const char* bytes, Size length) {
    if (GetDatabaseEncoding() != PG_UTF8) {
        char* converted = pg_server_to_any(bytes, static_cast<int>(length), PG_UTF8);
        if (converted != bytes) return {converted, strlen(converted)};
    }
    return {bytes, length};
}

std::string_view text_column(char* column) {
    struct varlena* value = whole(column);
    return as_utf8(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

std::string_view bytes_column(char* column) {
    struct varlena* value = whole(column);
    return {VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)};
}

// Makes a text with append(buffer) and keeps it. One buffer serves all, so that the chunk holds no more than the text.
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
    return as_utf8(copy, length);
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
    const Jsonb* json = headers != nullptr ? aligned_jsonb(headers) : nullptr;
    if (captured_by == nullptr) return json != nullptr ? jsonb_text(copies, json) : std::string_view();
    struct varlena* user = whole(captured_by);
    return kept_text(copies, [&](StringInfo out) {
        append_headers(out, json, raw_xid(tuple), {VARDATA_ANY(user), VARSIZE_ANY_EXHDR(user)});
    });
}

// Finds the columns from topic on; nullptr where one is null.
void find_columns(HeapTupleHeader tuple, char** columns) {
    auto* at = reinterpret_cast<char*>(tuple) + tuple->t_hoff;
    Size offset = 3 * sizeof(int64);
    for (int i = column_topic; i < column_count; ++i) {
        columns[i] = nullptr;
        if (i >= HeapTupleHeaderGetNatts(tuple)) continue;
        if ((tuple->t_infomask & HEAP_HASNULL) != 0 && att_isnull(i, tuple->t_bits)) continue;
        offset = att_align_pointer(offset, TYPALIGN_INT, -1, at + offset);
        columns[i] = at + offset;
        offset += VARSIZE_ANY(at + offset);
    }
}

}  // namespace

static Event heading(HeapTupleHeader tuple, char** columns) {
    find_columns(tuple, columns);
    Event event;
    event.id = raw_id(tuple);
    event.topic = text_column(columns[column_topic]);
    if (columns[column_key] != nullptr) event.key = text_column(columns[column_key]);
    return event;
}

Event heading_of(HeapTupleHeader tuple) {
    char* columns[column_count];
    return heading(tuple, columns);
}

Unsettled unsettled_event(HeapTupleHeader tuple) {
    char* columns[column_count];
    find_columns(tuple, columns);
    Unsettled event = {raw_id(tuple), text_column(columns[column_topic]), {}, columns[column_key] != nullptr};
    if (event.has_key) event.key = text_column(columns[column_key]);
    return event;
}

void copy_tuple(TupleCopies* copies, HeapTuple tuple, const Position& at) {
    char* room = room_for(copies, tuple->t_len);
    if (copies->count == copies->room) {
        copies->room = copies->room == 0 ? 64 : copies->room * 2;
        Size bytes = sizeof(TupleCopy) * copies->room;
        copies->items = static_cast<TupleCopy*>(copies->items == nullptr ? MemoryContextAlloc(copies->memory, bytes)
                                                                         : repalloc(copies->items, bytes));
    }
    std::memcpy(room, tuple->t_data, tuple->t_len);
    copies->items[copies->count++] = {at, tuple->t_len, reinterpret_cast<HeapTupleHeader>(room)};
}

Chunk* make_chunk(TupleCopies* copies, const Filter& filter, Size most_bytes, Position* next) {
    MemoryContext caller = MemoryContextSwitchTo(copies->memory);
    auto* chunk = static_cast<Chunk*>(palloc0(sizeof(Chunk)));
    chunk->memory = copies->memory;
    chunk->events = static_cast<Event*>(palloc(sizeof(Event) * (copies->count + 1)));
    if (copies->count > 0) chunk->generation = copies->items[0].at.generation;

    for (uint32 i = 0; i < copies->count; ++i) {
        if (chunk->bytes >= most_bytes) {
            *next = copies->items[i].at;
            break;
        }
        HeapTupleHeader tuple = copies->items[i].data;
        char* columns[column_count];
        Event* event = new (&chunk->events[chunk->count]) Event(heading(tuple, columns));
        if (filter.wanted != nullptr && !filter.wanted(filter.context, *event)) continue;
        ++chunk->count;
        event->published_at = to_unix_us(raw_published_at(tuple));
        event->headers = headers_text(copies, tuple, columns[column_headers], columns[column_captured_by]);
        event->content_type =
            columns[column_content_type] != nullptr ? text_column(columns[column_content_type]) : "application/json";
        if (columns[column_json] != nullptr)
            event->payload = jsonb_text(copies, aligned_jsonb(columns[column_json]));
        else if (columns[column_text] != nullptr)
            event->payload = columns[column_content_type] != nullptr
                                 ? text_column(columns[column_text])
                                 : change_text(copies, tuple, columns[column_text], columns[column_topic]);
        else
            event->payload = bytes_column(columns[column_bytes]);
        event->is_bytes = columns[column_bytes] != nullptr;
        chunk->bytes += event->payload.size() + event->headers.size() + copies->items[i].length;
    }

    auto by_id = [](const Event& a, const Event& b) { return a.id < b.id; };
    if (!std::is_sorted(chunk->events, chunk->events + chunk->count, by_id))
        std::sort(chunk->events, chunk->events + chunk->count, by_id);
    MemoryContextSwitchTo(caller);
    return chunk;
}

}  // namespace eventbus::log
