// What it is: what is not right yet with a broker or route that has just been made or changed, told in NOTICEs.
// Who calls it: create_broker, alter_broker, create_route.
// Never: refuses anything: all of it may be put right afterwards.
#pragma once

#include "core/broker_settings.hpp"

namespace eventbus::catalog {

// No preload, or no free slot for a worker.
void tell_what_workers_lack();

// The files that a broker's options name, and that the server cannot read now: guests fill it, hosts tell it.
class UnreadableFiles {
 public:
    void look_at(const BrokerOptions& options);
    void tell() const;

 private:
    struct File {
        const char* option;
        int error;
        char name[1024];
    };
    void look_at(const char* option, const std::string& name);
    File files_[5];
    int count_ = 0;
};

}  // namespace eventbus::catalog
