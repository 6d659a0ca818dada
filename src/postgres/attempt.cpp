#include "postgres/attempt.hpp"

extern "C" {
#include "utils/guc.h"
#include "utils/resowner.h"
}

namespace eventbus {

bool is_passing(int sqlstate) {
    switch (ERRCODE_TO_CATEGORY(sqlstate)) {
        case ERRCODE_INSUFFICIENT_RESOURCES:
        case ERRCODE_OPERATOR_INTERVENTION:
        case ERRCODE_TRANSACTION_ROLLBACK:
            return true;
        default:
            return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
    }
}

ErrorData* attempt_anything(void (*work)(void*), void* argument) {
    MemoryContext memory = CurrentMemoryContext;
    ResourceOwner owner = CurrentResourceOwner;
    // Decoding a transaction that may be rolled back meanwhile watches it; the end of a subtransaction would end that.
    TransactionId watched = CheckXidAlive;
    ErrorData* volatile error = nullptr;
    BeginInternalSubTransaction(nullptr);
    MemoryContextSwitchTo(memory);
    PG_TRY();
    {
        work(argument);
        ReleaseCurrentSubTransaction();
    }
    PG_CATCH();
    {
        MemoryContextSwitchTo(memory);
        error = CopyErrorData();
        FlushErrorState();
        RollbackAndReleaseCurrentSubTransaction();
        CheckXidAlive = watched;
    }
    PG_END_TRY();
    MemoryContextSwitchTo(memory);
    CurrentResourceOwner = owner;
    return error;
}

// A subtransaction that ends early sets it back. A millisecond is the shortest there is.
int begin_without_waiting() {
    const int level = NewGUCNestLevel();
    constexpr bool change = true;
    constexpr bool reload = false;
    (void)set_config_option("lock_timeout", "1ms", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, change, ERROR, reload);
    return level;
}

void end_without_waiting(int level) {
    CHECK_FOR_INTERRUPTS();  // the millisecond may be over just as the lock was had
    AtEOXact_GUC(true, level);
}

const char* error_words(const ErrorData* error) {
    return error->detail != nullptr ? psprintf("%s (%s)", error->message, error->detail) : error->message;
}

}  // namespace eventbus
