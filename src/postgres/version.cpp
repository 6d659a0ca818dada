#include "postgres/version.hpp"

#include "postgres/query.hpp"

namespace eventbus {

bool is_our_version() {
    return strcmp(extension_version(), EVENTBUS_VERSION) == 0;
}

const char* version_words() {
    return psprintf("the extension of this database is version %s, the server's library %s: events wait",
                    extension_version(), EVENTBUS_VERSION);
}

void need_our_version(const char* to_do) {
    if (is_our_version()) return;
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("pg_eventbus cannot %s before its update", to_do), errdetail("%s.", version_words()),
                    errhint(version_hint)));
}

}  // namespace eventbus
