#include "catalog/names.hpp"

#include "postgres/query.hpp"

namespace eventbus::catalog {

static const char* lock_for(Hold hold) {
    switch (hold) {
        case Hold::none:
            return "";
        case Hold::share:
            return "FOR SHARE";
        case Hold::change:
            return "FOR NO KEY UPDATE";
        case Hold::removal:
            break;
    }
    return "FOR UPDATE";
}

static int32 find(const char* noun, const char* table, const char* name, Hold hold) {
    run_query(psprintf("SELECT id FROM eventbus.%s WHERE name = $1 %s", table, lock_for(hold)), {Argument::of(name)},
              hold == Hold::none);
    if (SPI_processed == 1) return int4_at(0, 1);
    run_query(psprintf(
        "SELECT string_agg(name, ', ' ORDER BY name) FROM (SELECT name FROM eventbus.%s ORDER BY name LIMIT 20) n",
        table));
    char* known = text_at(0, 1);
    const bool is_url = strstr(name, "://") != nullptr;  // and may have a password
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
                    is_url ? errmsg("the name of a %s is wanted, not a URL", noun)
                           : errmsg("%s \"%s\" does not exist", noun, name),
                    known != nullptr ? errhint("Existing %ss: %s.", noun, known)
                                     : errhint("There is no %s yet; eventbus.create_%s makes one.", noun, noun)));
    pg_unreachable();
}

int32 find_broker(const char* name, Hold hold) {
    return find("broker", "broker_config", name, hold);
}
int32 find_route(const char* name, Hold hold) {
    return find("route", "route_config", name, hold);
}

}  // namespace eventbus::catalog
