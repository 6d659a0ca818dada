// What it is: see spool.hpp.
// Who calls it: see spool.hpp.
// Never: see spool.hpp.
#include "wal/spool.hpp"

#include "wal/packed.hpp"

extern "C" {
#include "storage/buffile.h"
}

namespace eventbus::wal {

namespace {

struct Place {
    int file;
    pgoff_t offset;
    bool operator==(const Place&) const = default;
};

struct Record {
    SpoolHead head;
    Packed event;
};

}  // namespace

struct Spool {
    BufFile* file;
    MemoryContext memory;
    bool writing;   // the file stands where it is written, not where it is read
    Place written;  // valid while it does not stand there
    Place read;
    Place readable;
    Record next;  // the one whose head was read last
};

namespace {

Place place_of(Spool* spool) {
    Place place;
    BufFileTell(spool->file, &place.file, &place.offset);
    return place;
}

void stand(Spool* spool, bool writing) {
    if (spool->writing == writing) return;
    (spool->writing ? spool->written : spool->read) = place_of(spool);
    const Place& to = writing ? spool->written : spool->read;
    if (BufFileSeek(spool->file, to.file, to.offset, SEEK_SET) != 0) elog(ERROR, "could not seek in a temporary file");
    spool->writing = writing;
}

Place written(const Spool* spool) {
    return spool->writing ? place_of(const_cast<Spool*>(spool)) : spool->written;
}

Place read_by_now(const Spool* spool) {
    return spool->writing ? spool->read : place_of(const_cast<Spool*>(spool));
}

void put(Spool* spool, const void* bytes, Size count) {
    if (count > 0) BufFileWrite(spool->file, const_cast<void*>(bytes), count);
}

void get(Spool* spool, void* bytes, Size count) {
    if (count > 0 && BufFileRead(spool->file, bytes, count) != count)
        elog(ERROR, "a temporary file ends in the middle of an event");
}

}  // namespace

Spool* make_spool(MemoryContext memory) {
    MemoryContext own = AllocSetContextCreate(memory, "pg_eventbus spool", ALLOCSET_SMALL_SIZES);
    MemoryContext before = MemoryContextSwitchTo(own);
    auto* spool = static_cast<Spool*>(palloc0(sizeof(Spool)));
    spool->memory = own;
    spool->writing = true;
    spool->file = BufFileCreateTemp(true);
    MemoryContextSwitchTo(before);
    return spool;
}

void free_spool(Spool* spool) {
    BufFileClose(spool->file);
    MemoryContextDelete(spool->memory);
}

void write_event(Spool* spool, const SpoolHead& head, const Event& event) {
    stand(spool, true);
    MemoryContext before = MemoryContextSwitchTo(spool->memory);
    Record record = {head, pack(event)};
    put(spool, &record, sizeof record);
    put_texts(event, [&](std::string_view text) { put(spool, text.data(), text.size()); });
    MemoryContextSwitchTo(before);
}

void write_gap(Spool* spool, const SpoolHead& head) {
    Event nothing;
    write_event(spool, head, nothing);
}

void release(Spool* spool) {
    spool->readable = written(spool);
}

void take_back(Spool* spool) {
    stand(spool, false);
    spool->written = spool->readable;
}

bool is_read(const Spool* spool) {
    return read_by_now(spool) == spool->readable;
}

bool is_empty(const Spool* spool) {
    return read_by_now(spool) == written(spool);
}

bool read_head(Spool* spool, SpoolHead* head) {
    if (is_read(spool)) return false;
    MemoryContext before = MemoryContextSwitchTo(spool->memory);
    stand(spool, false);
    get(spool, &spool->next, sizeof spool->next);
    MemoryContextSwitchTo(before);
    *head = spool->next.head;
    return true;
}

Event read_event(Spool* spool, Chunk* chunk) {
    const Packed& packed = spool->next.event;
    Size length = length_of_texts(packed);
    char* at = room_for(chunk, length);
    get(spool, at, length);
    return unpack(packed, at);
}

void skip_event(Spool* spool) {
    if (BufFileSeek(spool->file, 0, static_cast<pgoff_t>(length_of_texts(spool->next.event)), SEEK_CUR) != 0)
        elog(ERROR, "could not seek in a temporary file");
}

}  // namespace eventbus::wal
