// What is written is a row of bytes that never ends, by the count of which everything is found; the files are stretches
// of it. PostgreSQL's own BufFile is not used: it gives nothing back before all of it is closed, and after an error in
// writing it tries that again at whatever comes next.
#include "source/wal/spool.hpp"

#include <algorithm>

#include "source/wal/serialized_event.hpp"

extern "C" {
#include "storage/fd.h"
#include "utils/wait_event.h"
}

namespace eventbus::wal {

namespace {

constexpr int64 file_bytes = INT64CONST(16) * 1024 * 1024;
constexpr int64 buffer_bytes = BLCKSZ;

struct Record {
    int64 place;  // where it stands: what does not say so has been damaged
    SpoolHead head;
    Packed event;
};

// Bytes of the files from `first` on.
struct Buffer {
    char* bytes;
    int64 first;
    int64 count;
};

}  // namespace

struct Spool {
    MemoryContext memory;
    File* files;
    int64 first_file;  // the number of files[0]
    int count;
    int room;
    Buffer to_write;  // what is not in the files yet
    Buffer from_files;
    int64 readable;
    int64 read;
    Record next;  // the one whose head was read last
};

namespace {

int64 written(const Spool* spool) {
    return spool->to_write.first + spool->to_write.count;
}

// The file of that byte, which may be the one behind the last one.
File file_of(Spool* spool, int64 place) {
    const int64 number = place / file_bytes - spool->first_file;
    if (number < spool->count) return spool->files[number];
    if (spool->count == spool->room) {
        spool->room = std::max(8, 2 * spool->room);
        const Size bytes = sizeof(File) * static_cast<Size>(spool->room);
        spool->files = static_cast<File*>(spool->files == nullptr ? MemoryContextAlloc(spool->memory, bytes)
                                                                  : repalloc(spool->files, bytes));
    }
    spool->files[spool->count] = OpenTemporaryFile(true);
    return spool->files[spool->count++];
}

// How much of `bytes` lies in the same file.
int in_one_file(int64 place, int64 bytes) {
    return static_cast<int>(std::min(bytes, file_bytes - place % file_bytes));
}

void write_to_files(Spool* spool, int64 place, const char* bytes, int64 length) {
    while (length > 0) {
        File file = file_of(spool, place);
        const int part = in_one_file(place, length);
        if (FileWrite(file, const_cast<char*>(bytes), static_cast<Size>(part), place % file_bytes,
                      WAIT_EVENT_BUFFILE_WRITE) != part)
            ereport(ERROR,
                    (errcode_for_file_access(), errmsg("could not write temporary file \"%s\": %m", FilePathName(file)),
                     errhint("Check free disk space.")));
        place += part;
        bytes += part;
        length -= part;
    }
}

void read_from_files(Spool* spool, int64 place, char* bytes, int64 length) {
    while (length > 0) {
        File file = file_of(spool, place);
        const int part = in_one_file(place, length);
        const auto got = static_cast<int>(
            FileRead(file, bytes, static_cast<Size>(part), place % file_bytes, WAIT_EVENT_BUFFILE_READ));
        if (got < 0)
            ereport(ERROR, (errcode_for_file_access(),
                            errmsg("could not read temporary file \"%s\": %m", FilePathName(file))));
        if (got != part)
            ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
                            errmsg("temporary file \"%s\" has been cut short", FilePathName(file))));
        place += part;
        bytes += part;
        length -= part;
    }
}

char* bytes_of(Spool* spool, Buffer* buffer) {
    if (buffer->bytes == nullptr)
        buffer->bytes = static_cast<char*>(MemoryContextAlloc(spool->memory, static_cast<Size>(buffer_bytes)));
    return buffer->bytes;
}

void put(Spool* spool, const char* bytes, Size length) {
    Buffer* buffer = &spool->to_write;
    auto rest = static_cast<int64>(length);
    while (rest > 0) {
        if (buffer->count == 0 && rest >= buffer_bytes) {
            write_to_files(spool, buffer->first, bytes, rest);
            buffer->first += rest;
            return;
        }
        const int64 part = std::min(rest, buffer_bytes - buffer->count);
        memcpy(bytes_of(spool, buffer) + buffer->count, bytes, static_cast<Size>(part));
        buffer->count += part;
        bytes += part;
        rest -= part;
        if (buffer->count < buffer_bytes) return;
        write_to_files(spool, buffer->first, buffer->bytes, buffer->count);
        buffer->first += buffer->count;
        buffer->count = 0;
    }
}

// What has been read is nobody's any more, and its files are not either.
void pass(Spool* spool, int64 place) {
    spool->read = place;
    int gone = 0;
    while (gone < spool->count && (spool->first_file + gone + 1) * file_bytes <= place) FileClose(spool->files[gone++]);
    if (gone == 0) return;
    spool->count -= gone;
    spool->first_file += gone;
    memmove(spool->files, spool->files + gone, sizeof(File) * static_cast<Size>(spool->count));
}

// The bytes at `place`, all of which may be read.
void get(Spool* spool, int64 place, char* bytes, Size length) {
    auto rest = static_cast<int64>(length);
    while (rest > 0) {
        const bool is_written = place < spool->to_write.first;
        Buffer* buffer = is_written ? &spool->from_files : &spool->to_write;
        if (is_written && (place < buffer->first || place >= buffer->first + buffer->count)) {
            const int64 ahead = std::min(spool->readable, spool->to_write.first) - place;
            if (rest >= buffer_bytes) {
                const int64 part = std::min(rest, ahead);
                read_from_files(spool, place, bytes, part);
                place += part;
                bytes += part;
                rest -= part;
                continue;
            }
            buffer->count = 0;
            const int64 part = std::min(ahead, buffer_bytes);
            read_from_files(spool, place, bytes_of(spool, buffer), part);
            buffer->first = place;
            buffer->count = part;
        }
        const int64 from = place - buffer->first;
        const int64 part = std::min(rest, buffer->count - from);
        memcpy(bytes, buffer->bytes + from, static_cast<Size>(part));
        place += part;
        bytes += part;
        rest -= part;
    }
}

}  // namespace

Spool* make_spool(MemoryContext memory) {
    MemoryContext own = AllocSetContextCreate(memory, "pg_eventbus spool", ALLOCSET_SMALL_SIZES);
    auto* spool = static_cast<Spool*>(MemoryContextAllocZero(own, sizeof(Spool)));
    spool->memory = own;
    return spool;
}

void free_spool(Spool* spool) {
    for (int i = 0; i < spool->count; ++i) FileClose(spool->files[i]);
    MemoryContextDelete(spool->memory);
}

void write_event(Spool* spool, const SpoolHead& head, const Event& event) {
    Record record = {written(spool), head, pack(event)};
    put(spool, reinterpret_cast<const char*>(&record), sizeof record);
    put_texts(event, [&](std::string_view text) { put(spool, text.data(), text.size()); });
}

void write_gap(Spool* spool, const SpoolHead& head) {
    Event nothing;
    write_event(spool, head, nothing);
}

void release(Spool* spool) {
    spool->readable = written(spool);
}

void take_back(Spool* spool) {
    Buffer* buffer = &spool->to_write;
    if (spool->readable < buffer->first) buffer->first = spool->readable;
    buffer->count = spool->readable - buffer->first;
}

bool is_read(const Spool* spool) {
    return spool->read == spool->readable;
}

bool is_empty(const Spool* spool) {
    return spool->read == written(spool);
}

bool read_head(Spool* spool, SpoolHead* head) {
    if (is_read(spool)) return false;
    const auto left = static_cast<Size>(spool->readable - spool->read);
    if (left >= sizeof(Record)) get(spool, spool->read, reinterpret_cast<char*>(&spool->next), sizeof(Record));
    if (left < sizeof(Record) || spool->next.place != spool->read ||
        length_of_texts(spool->next.event) > left - sizeof(Record))
        ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("a temporary file has been damaged")));
    pass(spool, spool->read + static_cast<int64>(sizeof(Record)));
    *head = spool->next.head;
    return true;
}

Event read_event(Spool* spool, Chunk* chunk) {
    const Packed& packed = spool->next.event;
    Size length = length_of_texts(packed);
    char* at = room_for(chunk, length);
    get(spool, spool->read, at, length);
    pass(spool, spool->read + static_cast<int64>(length));
    return unpack(packed, at);
}

void skip_event(Spool* spool) {
    pass(spool, spool->read + static_cast<int64>(length_of_texts(spool->next.event)));
}

}  // namespace eventbus::wal
