// What it is: what a prepared transaction has done to brokers, routes and the log, told from the locks that it holds.
// Who calls it: the utility hook, before COMMIT PREPARED and ROLLBACK PREPARED.
// Never: relies on the memory of the session that prepared it: that may have gone, and the server been restarted.
#pragma once

#include "postgres/prelude.hpp"

namespace eventbus::intake {

struct PreparedWork {
    bool events = false;
    bool configuration = false;  // brokers, routes, dead letters, the extension
};

// Of this database; nothing where there is no such transaction.
PreparedWork work_of_prepared(const char* gid);

}  // namespace eventbus::intake
