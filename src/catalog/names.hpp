// What it is: finding brokers and routes by name, with an error that lists those there are.
// Who calls it: the catalog room's functions, between SPI_connect and SPI_finish.
// Never: returns for a name that does not exist.
#pragma once

#include "postgres/prelude.hpp"

extern "C" {
#include "mb/pg_wchar.h"
}

namespace eventbus::catalog {

// Between SPI_connect and SPI_finish. The rows are locked: what is found stays until the end of the transaction.
// `change` lets senders refer to the row meanwhile: they store dead letters while an operator's transaction is open.
// `none` locks nothing, as a standby wants it.
enum class Hold : unsigned char { none, share, change, removal };
int32 find_broker(const char* name, Hold hold);
int32 find_route(const char* name, Hold hold);

}  // namespace eventbus::catalog
