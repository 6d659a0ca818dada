// What it is: where this database is at home: its server's identifier, its own number, and the copy that it is of.
// Who calls it: create_broker (brokers are written down with it), the keeper (others are of a copy), _PG_init.
// Never: is wrong about storage that was copied below the server: a snapshot of a disk looks like a restart.
//
// What a start finds in the data directory, before recovery takes it away:
//   backup_label or recovery.signal, without standby.signal   a copy from a base backup, or the past: a new number is
//                                                             written to pg_eventbus.copy, and stays there
//   binary-upgrade mode                                       pg_upgrade at work: pg_eventbus.upgraded is left, until
//                                                             every database has been looked at by the new server
#pragma once

#include "postgres/prelude.hpp"

namespace eventbus {

// Called once, while the server preloads libraries.
void note_start();
// "system identifier/database/copy", palloc'd; the last is empty of what is no copy.
char* home_of(Oid database);

bool was_upgraded();
void forget_upgrade();
// What home_of() said before pg_upgrade, but for the system identifier.
bool is_same_but_for_server(const char* home, Oid database);

}  // namespace eventbus
