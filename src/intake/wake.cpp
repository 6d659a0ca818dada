// What it is: the one transaction callback.
// Who calls it: PostgreSQL, at the end of every transaction of this process.
// Never: can fail; the transaction has already happened.
#include "intake/wake.hpp"

#include "log/log.hpp"
#include "status/shared.hpp"

namespace eventbus::intake {

namespace {

bool configuration = false;
bool databases = false;
bool log_written = false;
Oid suspended = InvalidOid;

void at_end(XactEvent event, void*) {
    switch (event) {
        case XACT_EVENT_COMMIT:
        case XACT_EVENT_ABORT:
        case XACT_EVENT_PREPARE:
            break;
        default:
            return;
    }

    if (event == XACT_EVENT_COMMIT && (log::appended_in_this_transaction() || log_written)) {
        if (status::Database* database = status::my_database()) status::count_commit(database);
    }
    // Somebody may wait for an event that will never be.
    if (event == XACT_EVENT_ABORT && log::appended_in_this_transaction()) status::stir_waiters(MyDatabaseId, 0);
    log::forget_appended();
    log_written = false;

    if (configuration && event != XACT_EVENT_ABORT) {
        if (status::Database* database = status::find_database(MyDatabaseId, true)) {
            database->log.forget();  // the extension may be another one now; the keeper will say
            database->configuration.fetch_add(1);
            database->look = true;
            status::wake_workers_of(MyDatabaseId);
        }
        status::stir_waiters(MyDatabaseId, 0);
        status::wake_launcher();
    }
    configuration = false;

    if (OidIsValid(suspended)) {
        if (status::Database* database = status::find_database(suspended, false)) {
            database->suspended_by = 0;
            database->look = true;
        }
        suspended = InvalidOid;
        databases = true;
    }
    if (databases) status::wake_launcher();
    databases = false;
}

}  // namespace

void register_wake() {
    RegisterXactCallback(at_end, nullptr);
}
void configuration_changed() {
    configuration = true;
}
void databases_changed() {
    databases = true;
}
void log_changed() {
    log_written = true;
}
void resume_at_end(Oid database) {
    suspended = database;
}

}  // namespace eventbus::intake
