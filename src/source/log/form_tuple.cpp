#include "source/log/form_tuple.hpp"

extern "C" {
#include "access/heaptoast.h"
}

namespace eventbus::log {

namespace {

Size header_size(int columns) {
    return MAXALIGN(SizeofHeapTupleHeader + BITMAPLEN(columns));
}

// A value as heap_form_tuple stores it.
struct Varlena {
    const varlena* value;
    Size data;
    explicit Varlena(const void* datum) : value(static_cast<const varlena*>(datum)), data(VARSIZE_ANY_EXHDR(value)) {}
    bool is_short() const { return data + VARHDRSZ_SHORT <= VARATT_SHORT_MAX; }
    Size end(Size at) const { return is_short() ? at + VARHDRSZ_SHORT + data : INTALIGN(at) + VARHDRSZ + data; }
};

// Calls visit(column, value) for the columns behind published_at that are not null, in their order.
template <class Visit>
void visit_values(const NewEvent& event, Visit&& visit) {
    visit(column_topic, Varlena(event.topic));
    if (event.key != nullptr) visit(column_key, Varlena(event.key));
    Varlena payload(DatumGetPointer(event.payload));
    if (event.payload_column != column_bytes) visit(event.payload_column, payload);
    if (event.captured_by != nullptr) visit(column_captured_by, Varlena(event.captured_by));
    if (event.has_headers) visit(column_headers, Varlena(DatumGetPointer(event.headers)));
    if (event.content_type != nullptr) visit(column_content_type, Varlena(event.content_type));
    if (event.payload_column == column_bytes) visit(event.payload_column, payload);
}

// How many columns there are up to the last one that is not null.
int columns_of(const NewEvent& event) {
    int columns = 0;
    visit_values(event, [&](Column column, const Varlena&) { columns = column + 1; });
    return columns;
}

}  // namespace

Size tuple_size(const NewEvent& event) {
    Size size = header_size(columns_of(event)) + 3 * sizeof(int64);
    visit_values(event, [&](Column, const Varlena& value) { size = value.end(size); });
    return size;
}

void form_tuple(const NewEvent& event, int64 id, TimestampTz published_at, HeapTupleHeader header, Size size) {
    auto* begin = reinterpret_cast<char*>(header);
    const int columns = columns_of(event);
    const Size values_at = header_size(columns);
    memset(begin, 0, values_at);
    HeapTupleHeaderSetDatumLength(header, size);
    header->t_hoff = static_cast<uint8>(values_at);
    HeapTupleHeaderSetNatts(header, columns);
    header->t_infomask = HEAP_HASNULL | HEAP_HASVARWIDTH | HEAP_XMAX_INVALID;
    HeapTupleHeaderSetXmin(header, GetCurrentTransactionId());
    HeapTupleHeaderSetCmin(header, GetCurrentCommandId(true));
    HeapTupleHeaderSetXmax(header, InvalidTransactionId);
    header->t_bits[0] = 1 << column_id | 1 << column_xid | 1 << column_published_at;

    int64 fixed[] = {id, static_cast<int64>(U64FromFullTransactionId(GetTopFullTransactionId())), published_at};
    memcpy(begin + values_at, fixed, sizeof fixed);
    Size at = values_at + sizeof fixed;
    visit_values(event, [&](Column column, const Varlena& value) {
        header->t_bits[column / 8] |= static_cast<bits8>(1 << column % 8);
        Size end = value.end(at);
        if (value.is_short()) {
            SET_VARSIZE_SHORT(begin + at, value.data + VARHDRSZ_SHORT);
        } else {
            memset(begin + at, 0, INTALIGN(at) - at);
            SET_VARSIZE(begin + INTALIGN(at), value.data + VARHDRSZ);
        }
        memcpy(begin + end - value.data, VARDATA_ANY(value.value), value.data);
        at = end;
    });
}

void set_id(HeapTupleHeader tuple, int64 id) {
    memcpy(reinterpret_cast<char*>(tuple) + tuple->t_hoff, &id, sizeof id);
}

bool is_large(Size tuple_size) {
    return tuple_size > TOAST_TUPLE_THRESHOLD;
}

}  // namespace eventbus::log
