// What it is: faults of each kind that the sanitized server is to tell: a function in SQL makes the one that it is asked for.
// Who calls it: scripts/host-sanitized, before it believes that nothing was found.
// Never: is part of a library that is installed.
#include <climits>

#include "postgres/prelude.hpp"

extern "C" {
#include "utils/memutils.h"
PG_MODULE_MAGIC;
EVENTBUS_SQL_FUNCTION(fault);
}

namespace {

volatile int sink;

// Not seen through by a compiler.
[[gnu::noinline]] void read(const char* from) {
    sink = *from;
}

}  // namespace

Datum fault(PG_FUNCTION_ARGS) {
    MemoryContext mine = AllocSetContextCreate(CurrentMemoryContext, "mine", ALLOCSET_DEFAULT_SIZES);
    auto* chunk = static_cast<char*>(MemoryContextAlloc(mine, 21));
    const bytea* given = PG_GETARG_BYTEA_PP(1);
    switch (PG_GETARG_INT32(0)) {
        case 0:
            read(chunk + 21);
            break;
        case 1:
            pfree(chunk);
            read(chunk);
            break;
        case 2:
            MemoryContextReset(mine);
            read(chunk);
            break;
        case 3:
            chunk = static_cast<char*>(repalloc(chunk, 100'000));
            read(chunk + 100'000);
            break;
        case 4:
            read(VARDATA_ANY(given) + VARSIZE_ANY_EXHDR(given));
            break;
        case 5: {
            auto* heap = new char[8];
            read(heap + 8 + (sink & 0));
            delete[] heap;
            break;
        }
        case 6: {
            volatile int most = INT_MAX;
            sink = most + 1;
            break;
        }
        default:
            break;
    }
    MemoryContextDelete(mine);
    PG_RETURN_VOID();
}
