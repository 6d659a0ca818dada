#include "processes/decoder_channel.hpp"

#include <algorithm>

extern "C" {
#include "lib/stringinfo.h"
}

namespace eventbus::processes {

namespace {

// The receiver of a message that goes round the queue's end copies it into a buffer, which it keeps: larger ones go in
// parts.
constexpr Size part_bytes = 128 * 1024;

void put(StringInfo out, const void* bytes, Size length) {
    appendBinaryStringInfo(out, static_cast<const char*>(bytes), static_cast<int>(length));
}

void put_text(StringInfo out, const char* text) {
    int32 length = text == nullptr ? -1 : static_cast<int32>(strlen(text));
    put(out, &length, sizeof length);
    if (length > 0) put(out, text, static_cast<Size>(length));
}

struct Reading {
    const char* at;
    const char* end;
    void get(void* bytes, Size length) {
        if (static_cast<Size>(end - at) < length) elog(ERROR, "a decoder's task is cut off");
        memcpy(bytes, at, length);
        at += length;
    }
    char* get_text() {
        int32 length;
        get(&length, sizeof length);
        if (length < 0) return nullptr;
        auto* text = static_cast<char*>(palloc0(static_cast<Size>(length) + 1));
        get(text, static_cast<Size>(length));
        return text;
    }
};

}  // namespace

void describe(const Task& task, char** bytes, Size* length) {
    StringInfoData out;
    initStringInfo(&out);
    put(&out, task.slot, sizeof task.slot);
    put(&out, &task.exists, sizeof task.exists);
    put(&out, &task.failures, sizeof task.failures);
    const int tables = list_length(task.failures.tables);
    put(&out, &tables, sizeof tables);
    for (int i = 0; i < tables; ++i) {
        Oid table = list_nth_oid(task.failures.tables, i);
        put(&out, &table, sizeof table);
    }
    const int takers = list_length(task.takers);
    put(&out, &takers, sizeof takers);
    for (int i = 0; i < takers; ++i) {
        const auto* taker = static_cast<const wal::Taker*>(list_nth(task.takers, i));
        put(&out, &taker->from, sizeof taker->from);
        put(&out, &taker->past_from, sizeof taker->past_from);
        for (auto text : wal::selection_texts) put_text(&out, taker->selection.*text);
        put(&out, &taker->selection.local_only, sizeof taker->selection.local_only);
        put_text(&out, static_cast<const char*>(list_nth(task.topics, i)));
    }
    *bytes = out.data;
    *length = static_cast<Size>(out.len);
}

void read_description(const char* bytes, Size length, Task* task) {
    Reading in = {bytes, bytes + length};
    in.get(task->slot, sizeof task->slot);
    in.get(&task->exists, sizeof task->exists);
    in.get(&task->failures, sizeof task->failures);
    task->failures.tables = NIL;
    int tables;
    in.get(&tables, sizeof tables);
    for (int i = 0; i < tables; ++i) {
        Oid table;
        in.get(&table, sizeof table);
        task->failures.tables = lappend_oid(task->failures.tables, table);
    }
    int takers;
    in.get(&takers, sizeof takers);
    for (int i = 0; i < takers; ++i) {
        auto* taker = static_cast<wal::Taker*>(palloc0(sizeof(wal::Taker)));
        in.get(&taker->from, sizeof taker->from);
        in.get(&taker->past_from, sizeof taker->past_from);
        for (auto text : wal::selection_texts) taker->selection.*text = in.get_text();
        in.get(&taker->selection.local_only, sizeof taker->selection.local_only);
        task->takers = lappend(task->takers, taker);
        task->topics = lappend(task->topics, in.get_text());
    }
}

static bool send_part(shm_mq_handle* queue, shm_mq_iovec* pieces, int count, void (*meanwhile)()) {
    for (;;) switch (shm_mq_sendv(queue, pieces, count, true, true)) {
            case SHM_MQ_SUCCESS:
                return true;
            case SHM_MQ_DETACHED:
                return false;
            case SHM_MQ_WOULD_BLOCK:
                meanwhile();
                break;
        }
}

bool send(shm_mq_handle* queue, const void* head, Size head_bytes, const void* body, Size body_bytes,
          void (*meanwhile)()) {
    Size total = head_bytes + body_bytes;
    const auto* rest = static_cast<const char*>(body);
    Size part = std::min(body_bytes, part_bytes);
    shm_mq_iovec first[] = {{reinterpret_cast<const char*>(&total), sizeof total},
                            {static_cast<const char*>(head), head_bytes},
                            {rest, part}};
    if (!send_part(queue, first, body_bytes > 0 ? 3 : 2, meanwhile)) return false;
    while (part < body_bytes) {
        rest += part;
        body_bytes -= part;
        part = std::min(body_bytes, part_bytes);
        shm_mq_iovec next = {rest, part};
        if (!send_part(queue, &next, 1, meanwhile)) return false;
    }
    return true;
}

Received receive(Inbox* inbox, const char** message, Size* length) {
    if (inbox->parts != nullptr && inbox->got == inbox->total) {
        pfree(inbox->parts);
        inbox->parts = nullptr;
    }
    for (;;) {
        Size bytes;
        void* data;
        switch (shm_mq_receive(inbox->queue, &bytes, &data, true)) {
            case SHM_MQ_WOULD_BLOCK:
                return Received::nothing;
            case SHM_MQ_DETACHED:
                return Received::gone;
            case SHM_MQ_SUCCESS:
                break;
        }
        auto* at = static_cast<const char*>(data);
        if (inbox->parts == nullptr) {
            memcpy(&inbox->total, at, sizeof inbox->total);
            at += sizeof inbox->total;
            bytes -= sizeof inbox->total;
            if (bytes == inbox->total) {
                *message = at;
                *length = bytes;
                return Received::message;
            }
            inbox->parts = static_cast<char*>(
                MemoryContextAllocExtended(inbox->memory, inbox->total, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM));
            inbox->got = 0;
            if (inbox->parts == nullptr) {
                *message = at;
                *length = inbox->total;
                return Received::too_large;
            }
        }
        memcpy(inbox->parts + inbox->got, at, bytes);
        inbox->got += bytes;
        if (inbox->got < inbox->total) continue;
        *message = inbox->parts;
        *length = inbox->total;
        return Received::message;
    }
}

}  // namespace eventbus::processes
