// What it is: places in the WAL: as texts, and where it ends, as a place that can be flushed and read up to.
// Who calls it: intake, where it tells senders how far to read; whoever names a place.
// Never: names a place at which no record can end.
#pragma once

#include "postgres/prelude.hpp"

extern "C" {
#include "access/xlog.h"
#include "access/xlog_internal.h"
}

namespace eventbus {

// PostgreSQL says where the next record will begin. That may be behind the header of a page, and what has been written
// ends before it: flushing up to there is an error, and reading never gets there.
inline XLogRecPtr before_page_header(XLogRecPtr lsn) {
    bool first_page = XLogSegmentOffset(lsn, wal_segment_size) < XLOG_BLCKSZ;
    XLogRecPtr within = lsn % XLOG_BLCKSZ;
    return within <= (first_page ? SizeOfXLogLongPHD : SizeOfXLogShortPHD) ? lsn - within : lsn;
}

// As pg_lsn has it; palloc'd.
inline const char* lsn_text(XLogRecPtr lsn) {
    return psprintf("%X/%X", static_cast<uint32>(lsn >> 32), static_cast<uint32>(lsn));
}

inline XLogRecPtr end_of_wal() {
    return before_page_header(GetXLogInsertRecPtr());
}

}  // namespace eventbus
