// What it is: the way of a change, a truncate and a message from PostgreSQL to the format: what is wanted continues.
// Who calls it: the plugin's callbacks, for whole transactions and for blocks of unfinished ones.
// Never: knows a format's words.
#pragma once

#include "decoder/decoder.hpp"

namespace eventbus::decoder {

Operation operation_of(const ReorderBufferChange* change);  // of a row
void write_change(LogicalDecodingContext* context, ReorderBufferTXN* txn, Relation relation,
                  ReorderBufferChange* change);
void write_truncate(LogicalDecodingContext* context, ReorderBufferTXN* txn, int count, Relation relations[],
                    ReorderBufferChange* change);
void write_message(LogicalDecodingContext* context, ReorderBufferTXN* txn, XLogRecPtr lsn, bool transactional,
                   const char* prefix, Size size, const char* content);

// Keeps the client alive through what is left out, where the server does not do it.
void report_progress(Decoder* decoder, bool skipped, bool end);

}  // namespace eventbus::decoder
