// What it is: what the debezium format says of transactions: BEGIN, END, blocks of unfinished ones, prepared ones.
// Who calls it: the plugin's callbacks.
// Never: is called for wal2json's format, which has no words for these.
#pragma once

#include "decoder/change_envelope.hpp"

namespace eventbus::decoder {

inline Progress* current_progress(Decoder* decoder) {
    return decoder->streamed != nullptr ? decoder->streamed : &decoder->progress;
}

// One object: {"status": …, "id": …, "ts_ms": …, "lsn": …} and what else is known.
void write_mark(Decoder* decoder, const char* status, XLogRecPtr lsn, const Progress* progress = nullptr,
                TransactionId sub = InvalidTransactionId, const char* gid = nullptr);

// Fills in the callbacks for blocks of unfinished and for prepared transactions.
void add_stream_callbacks(OutputPluginCallbacks* callbacks);

}  // namespace eventbus::decoder
