// What it is: whose events are, for rotation to count those that no route took.
// Who calls it: the keeper's upkeep, through log::rotate.
// Never: reads the routes' patterns again while they are the same.
#include "processes/topic_takers.hpp"

#include "catalog/routed_topics.hpp"

extern "C" {
#include "utils/memutils.h"
}

namespace eventbus::processes {

log::Takers read_takers(const char* routes) {
    static MemoryContext memory = nullptr;
    static char* known = nullptr;
    static catalog::Taken* taken = nullptr;
    static_assert(log::Takers::never == catalog::taken_never);
    if (known == nullptr || strcmp(known, routes) != 0) {
        if (memory == nullptr)
            memory = AllocSetContextCreate(TopMemoryContext, "pg_eventbus topics", ALLOCSET_SMALL_SIZES);
        known = nullptr;
        MemoryContextReset(memory);
        taken = catalog::read_taken(memory);
        known = MemoryContextStrdup(memory, routes);
    }
    return {catalog::everything_taken_from(taken),
            [](void* context, std::string_view topic) {
                return catalog::taken_from(static_cast<catalog::Taken*>(context), topic);
            },
            taken};
}

}  // namespace eventbus::processes
