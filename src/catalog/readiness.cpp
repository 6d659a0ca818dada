#include "catalog/readiness.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "counters/worker_slots.hpp"
#include "postgres/encoding.hpp"
#include "postgres/prelude.hpp"
#include "settings/settings.hpp"

namespace eventbus::catalog {

void tell_what_workers_lack() {
    if (counters::shared() == nullptr) {
        ereport(NOTICE, (errmsg("pg_eventbus is not preloaded: events will wait in the log and not be delivered"),
                         errhint("%s", settings::preload_hint())));
        return;
    }
    const counters::Database* database = counters::my_database();
    const int missing = database == nullptr ? 0 : database->missing_workers + database->missing_decoders;
    if (missing > 0)
        ereport(NOTICE, (errmsg("%d of pg_eventbus's workers found no free slot; max_worker_processes is %d", missing,
                                max_worker_processes),
                         errdetail("Events of the brokers that they would serve wait."),
                         errhint("Set max_worker_processes = %d in postgresql.conf and restart the server.",
                                 counters::wanted_worker_processes())));
}

void UnreadableFiles::look_at(const BrokerOptions& options) {
    look_at("password_file", options.password_file);
    look_at("ca_file", options.ca_file);
    look_at("crl_file", options.crl_file);
    look_at("cert_file", options.cert_file);
    look_at("key_file", options.key_file);
}

void UnreadableFiles::look_at(const char* option, const std::string& name) {
    if (name.empty()) return;
    struct stat what;
    int error = access(name.c_str(), R_OK) == 0 && stat(name.c_str(), &what) == 0 ? 0 : errno;
    if (error == 0 && S_ISDIR(what.st_mode)) error = EISDIR;
    if (error == 0) return;
    File& file = files_[count_++];
    file.option = option;
    file.error = error;
    file.name[name.copy(file.name, sizeof file.name - 1)] = '\0';
}

void UnreadableFiles::tell() const {
    for (int i = 0; i < count_; ++i)
        ereport(NOTICE,
                (errmsg("the server cannot read \"%s\" now: %s", from_utf8(files_[i].name), strerror(files_[i].error)),
                 errdetail("The broker's option \"%s\" names it.", files_[i].option),
                 errhint("Until it can, the broker is not connected to. The file is on the server, and the "
                         "user that PostgreSQL runs as needs to read it.")));
}

}  // namespace eventbus::catalog
