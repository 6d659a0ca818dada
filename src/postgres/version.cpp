#include "postgres/version.hpp"

#include "postgres/query.hpp"

extern "C" {
#include "executor/spi.h"
}

#include <cstdlib>

namespace eventbus {

static const char* restart_hint() {
    return "Install pg_eventbus of the extension's version, where that is not done, and restart the server.";
}

bool is_newer_than_library(const char* version) {
    const char* ours = EVENTBUS_VERSION;
    while (true) {
        char* rest_of_theirs;
        char* rest_of_ours;
        const unsigned long theirs_now = strtoul(version, &rest_of_theirs, 10);
        const unsigned long ours_now = strtoul(ours, &rest_of_ours, 10);
        if (theirs_now != ours_now) return theirs_now > ours_now;
        if (*rest_of_theirs != '.') return false;
        version = rest_of_theirs + 1;
        ours = *rest_of_ours == '.' ? rest_of_ours + 1 : "";
    }
}

bool is_our_version() {
    return strcmp(extension_version(), EVENTBUS_VERSION) == 0;
}

const char* version_words() {
    return psprintf("the extension of this database is version %s, the server's library %s: events wait",
                    extension_version(), EVENTBUS_VERSION);
}

const char* version_hint() {
    return is_newer_than_library(extension_version()) ? restart_hint() : "Run ALTER EXTENSION pg_eventbus UPDATE.";
}

void need_our_version(const char* to_do) {
    if (is_our_version()) return;
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("pg_eventbus cannot %s before its update", to_do), errdetail("%s.", version_words()),
                    errhint("%s", version_hint())));
}

}  // namespace eventbus

using namespace eventbus;

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_check_library);

// The first that CREATE EXTENSION and its updates do: src/schema/00_library.sql.
Datum eventbus_check_library(PG_FUNCTION_ARGS) {
    (void)fcinfo;
    SPI_connect();
    const char* version = extension_version();
    if (is_newer_than_library(version))
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("the server runs a library of pg_eventbus that is older than version %s", version),
                        errdetail("It was loaded before its files were replaced: it is version %s.", EVENTBUS_VERSION),
                        errhint("Restart the server, then run the command again.")));
    SPI_finish();
    PG_RETURN_VOID();
}
}
