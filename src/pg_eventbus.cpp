// What it is: the front door: _PG_init and nothing else.
// Who calls it: PostgreSQL, when it loads the library: at server start, or in a backend that publishes without preload.
// Never: fails because a broker's library is missing; those are in modules of their own.
#include "counters/shared.hpp"
#include "intake/wake.hpp"
#include "postgres/home.hpp"
#include "postgres/prelude.hpp"
#include "processes/process.hpp"
#include "processes/utility_hook.hpp"
#include "settings/settings.hpp"

extern "C" {
PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);
}

void _PG_init(void) {
    eventbus::settings::define();
    eventbus::intake::register_wake();
    if (!process_shared_preload_libraries_in_progress) return;
    eventbus::note_start();
    eventbus::counters::request_shared_memory();
    eventbus::intake::install_statement_hooks();
    eventbus::processes::install_utility_hook();
    eventbus::processes::register_launcher();
}
