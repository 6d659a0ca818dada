// What it is: every GUC of pg_eventbus.
// Who calls it: _PG_init defines them; host rooms read the variables.
// Never: is changed by anything but PostgreSQL's GUC machinery.
#pragma once

namespace eventbus::settings {

enum OnLogFull : int { on_log_full_error, on_log_full_skip };

enum Copies : int { copies_pause, copies_deliver };

extern int batch_events;     // events read at a time
extern int copies;           // Copies
extern bool delivery;        // off: no sender runs
extern int lag_warning;      // seconds; 0: never
extern int max_log_size;     // megabytes; -1: no limit
extern int max_payload;      // bytes
extern int on_log_full;      // OnLogFull
extern int retention;        // seconds
extern int rotation_period;  // seconds
extern int safety_poll;      // milliseconds
extern int segment_size;     // kilobytes
extern char* source;         // what messages say of where they come from; empty: made up

// What messages name as their origin: eventbus.source, or what an empty one stands for. Palloc'd; looks into the
// catalog.
const char* source_name();

// What to do where the library is not preloaded: the line of postgresql.conf, with what is preloaded already. Palloc'd.
const char* preload_hint();

void define();

}  // namespace eventbus::settings
