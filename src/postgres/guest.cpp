// What it is: the reporting half of the wall.
// Who calls it: call_guest, once the handler has been left.
// Never: runs with a C++ exception in flight.
#include "postgres/guest.hpp"

#include "postgres/encoding.hpp"

namespace eventbus {

// Guests quote what they were given: UTF-8, or a text of the database.
static const char* words_of(const char* words) {
    const auto length = static_cast<int>(strlen(words));
    return !database_is_utf8() && pg_verify_mbstr(PG_UTF8, words, length, true) ? from_utf8(words) : words;
}

void report_guest_error(const GuestError& error) {
    switch (error.kind) {
        case GuestError::Kind::bad_input:
            ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", words_of(error.message)),
                            error.detail[0] != '\0' ? errdetail("%s", words_of(error.detail)) : 0,
                            error.hint[0] != '\0' ? errhint("%s", words_of(error.hint)) : 0));
            break;
        case GuestError::Kind::out_of_memory:
            ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
            break;
        case GuestError::Kind::none:
        case GuestError::Kind::other:
            ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("pg_eventbus: %s", error.message)));
            break;
    }
    pg_unreachable();
}

}  // namespace eventbus
