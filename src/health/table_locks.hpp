// What it is: asking for our tables without waiting for long, so that those who want to know why nothing moves are told.
// Who calls it: the functions behind eventbus.status and eventbus.health(), before they read.
// Never: waits for more than a second; releases a lock that it has got.
#pragma once

#include <initializer_list>

#include "postgres/prelude.hpp"

namespace eventbus::health {

// Locks tables of the schema eventbus against being changed, until the transaction ends. Returns, where somebody has
// one to himself, which and who, palloc'd; nullptr: nobody has. Between SPI_connect and SPI_finish.
const char* locked_table(std::initializer_list<const char*> tables);
inline constexpr const char* locked_table_hint =
    "End that transaction: senders and the keeper may wait for it as well. pg_stat_activity shows what it does.";

}  // namespace eventbus::health
