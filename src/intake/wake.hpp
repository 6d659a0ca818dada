// What it is: telling the workers, at commit, what the transaction has done.
// Who calls it: publish (through the log's flag), the configuration functions, the utility hook.
// Never: wakes anybody before the transaction is visible to others.
#pragma once

#include "intake/prepared.hpp"

namespace eventbus::intake {

// Registers the transaction callbacks; called once a process, from _PG_init.
void register_wake();
// The hooks at the ends of statements, in a library that is preloaded: events wait in memory only where it is.
void install_statement_hooks();

// At commit, workers of this database read brokers and routes again, and the launcher looks at it.
void configuration_changed();
// At commit, the launcher looks for new and dropped databases.
void databases_changed();
// This command ends a transaction that was prepared, and that has done this: at commit, those whom it concerns are
// told.
void prepared_ends(bool commits, const PreparedWork& work);
// At commit or abort, the database's workers may start again.
void resume_at_end(Oid database);

}  // namespace eventbus::intake
