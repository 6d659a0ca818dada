// What it is: rows that cannot be used, shown as held: a route's, or a broker's with all its routes.
// Who calls it: the sender.
// Never: connects, reads an event or moves a cursor.
#pragma once

#include "postgres/guest.hpp"

namespace eventbus::sender {

// A row that nobody has checked: it was written by hand, or by another version.
void show_unusable(int32 route_id, const char* words);

// The sender's broker cannot be used, for this reason. Waits until it can, or until its row is another one; then ends
// the process, and the keeper starts the next one. Another process than the sender leaves out what has to be left out.
[[noreturn]] void wait_until_usable(const GuestError& error, bool (*can_be_used)());

}  // namespace eventbus::sender
