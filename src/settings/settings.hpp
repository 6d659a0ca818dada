// What it is: every GUC of pg_eventbus.
// Who calls it: _PG_init defines them; host rooms read the variables.
// Never: is changed by anything but PostgreSQL's GUC machinery.
#pragma once

namespace eventbus::settings {

extern int batch_events;     // events read at a time
extern int max_payload;      // bytes
extern int retention;        // seconds
extern int rotation_period;  // seconds
extern int safety_poll;      // milliseconds
extern int segment_size;     // kilobytes
extern char* source;         // what messages say of where they come from; empty: made up

void define();

}  // namespace eventbus::settings
