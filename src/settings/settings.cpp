// What it is: the definitions of every GUC, in alphabetical order.
// Who calls it: _PG_init.
// Never: needs preloading; all of them can be set once the library is loaded.
#include "settings/settings.hpp"

#include "postgres/encoding.hpp"

extern "C" {
#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "utils/guc.h"
}

namespace eventbus::settings {

int batch_events = 2000;
int lag_warning = 600;
int max_log_size = -1;
int max_payload = 16 * 1024 * 1024;
int copies = copies_pause;
bool delivery = true;
int on_log_full = on_log_full_error;
int retention = 0;
int rotation_period = 30;
int safety_poll = 15000;
int segment_size = 64 * 1024;
char* source = nullptr;

static const config_enum_entry on_log_full_choices[] = {
    {"error", on_log_full_error, false},
    {"skip", on_log_full_skip, false},
    {nullptr, 0, false},
};

static const config_enum_entry copies_choices[] = {
    {"pause", copies_pause, false},
    {"deliver", copies_deliver, false},
    {nullptr, 0, false},
};

const char* source_name() {
    if (source != nullptr && *source != '\0') return readable_name(pstrdup(source));
    const char* name = GetConfigOption("cluster_name", true, false);
    if (name == nullptr || *name == '\0') name = psprintf(UINT64_FORMAT, GetSystemIdentifier());
    return readable_name(psprintf("postgresql://%s/%s", name, get_database_name(MyDatabaseId)));
}

const char* preload_hint() {
    const char* others = GetConfigOption("shared_preload_libraries", true, false);
    const bool any = others != nullptr && *others != '\0';
    return psprintf("Set shared_preload_libraries = '%s%spg_eventbus' in postgresql.conf and restart the server.",
                    any ? others : "", any ? ", " : "");
}

// What is smaller than half a unit arrives here as 0, and no limit is not what it says.
// NOLINTNEXTLINE(readability-non-const-parameter): a GucIntCheckHook
static bool check_max_log_size(int* megabytes, void**, GucSource) {
    if (*megabytes != 0) return true;
    GUC_check_errdetail(
        "eventbus.max_log_size is -1 (no limit), or at least 1MB; what is not in whole megabytes is rounded.");
    return false;
}

void define() {
    DefineCustomIntVariable("eventbus.batch_events", "Most events that a sender reads from the log at a time.",
                            "A batch also ends at about 2 MB of payload.", &batch_events, 2000, 1, 100000, PGC_SIGHUP,
                            0, nullptr, nullptr, nullptr);
    DefineCustomEnumVariable("eventbus.copies", "What becomes of brokers that have come here by a dump or a copy.",
                             "pause: they wait for eventbus.adopt(). deliver: copies deliver as if they were the "
                             "original.",
                             &copies, copies_pause, copies_choices, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
    DefineCustomBoolVariable("eventbus.delivery", "Whether events are delivered.",
                             "off: they wait in the log and the WAL. For the server, or by ALTER DATABASE for one "
                             "database.",
                             &delivery, true, PGC_SUSET, 0, nullptr, nullptr, nullptr);
    DefineCustomIntVariable("eventbus.lag_warning", "Lag of a route from which on eventbus.health() warns.",
                            "0 turns the warning off.", &lag_warning, 600, 0, INT_MAX / 2, PGC_SIGHUP, GUC_UNIT_S,
                            nullptr, nullptr, nullptr);
    DefineCustomIntVariable("eventbus.max_log_size", "Most that the event log of a database may take on disk.",
                            "-1 means no limit. What becomes of a full log, eventbus.on_log_full says.", &max_log_size,
                            -1, -1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MB, check_max_log_size, nullptr, nullptr);
    DefineCustomIntVariable("eventbus.max_payload", "Largest payload that publish accepts.",
                            "A larger one is an error of the publishing call.", &max_payload, 16 * 1024 * 1024, 1024,
                            256 * 1024 * 1024, PGC_SUSET, GUC_UNIT_BYTE, nullptr, nullptr, nullptr);
    DefineCustomEnumVariable("eventbus.on_log_full", "What gives way when the log has reached eventbus.max_log_size.",
                             "error: publishing fails. skip: the route that lags furthest leaves events out.",
                             &on_log_full, on_log_full_error, on_log_full_choices, PGC_SIGHUP, 0, nullptr, nullptr,
                             nullptr);
    DefineCustomIntVariable("eventbus.retention", "How long delivered events stay in the log.",
                            "0 lets a segment go as soon as all routes have passed it.", &retention, 0, 0, INT_MAX / 2,
                            PGC_SIGHUP, GUC_UNIT_S, nullptr, nullptr, nullptr);
    DefineCustomIntVariable("eventbus.rotation_period",
                            "Longest time that a segment with events in it stays the current one.", nullptr,
                            &rotation_period, 30, 1, 86400, PGC_SIGHUP, GUC_UNIT_S, nullptr, nullptr, nullptr);
    DefineCustomIntVariable("eventbus.safety_poll", "How often workers look for work that nobody woke them for.",
                            "Delivery does not wait for it: a commit wakes the senders at once.", &safety_poll, 15000,
                            100, 600000, PGC_SIGHUP, GUC_UNIT_MS, nullptr, nullptr, nullptr);
    DefineCustomIntVariable("eventbus.segment_size", "Size at which the log moves to its next segment.", nullptr,
                            &segment_size, 64 * 1024, 64, 64 * 1024 * 1024, PGC_SIGHUP, GUC_UNIT_KB, nullptr, nullptr,
                            nullptr);
    DefineCustomStringVariable("eventbus.source", "What messages name as their origin.",
                               "Empty means postgresql://<cluster_name or system identifier>/<database>.", &source, "",
                               PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
    MarkGUCPrefixReserved("eventbus");
}

}  // namespace eventbus::settings
