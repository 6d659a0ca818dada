// What it is: making our workers leave a database that a command needs for itself, and other commands to notice.
// Who calls it: _PG_init installs it.
// Never: changes what the command does.
#pragma once

namespace eventbus::processes {

void install_utility_hook();

}  // namespace eventbus::processes
