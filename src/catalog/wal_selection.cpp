// What it is: see wal_selection.hpp.
// Who calls it: see wal_selection.hpp.
// Never: see wal_selection.hpp.
#include "catalog/wal_selection.hpp"

#include "postgres/guest.hpp"
#include "router/route.hpp"

namespace eventbus::catalog {

wal::Selection wal_selection(const char* options, const broker::Module& module) {
    auto* read = call_guest([&] { return new router::RouteOptions(router::read_route_options(options, module)); });
    auto text = [](const std::optional<std::string>& given) { return given ? pstrdup(given->c_str()) : nullptr; };
    const router::WalOptions& wal = read->wal;
    wal::Selection selection = {text(wal.tables), text(wal.publication), text(wal.operations), text(wal.messages),
                                text(wal.format)};
    call_guest([&] { delete read; });
    return selection;
}

}  // namespace eventbus::catalog
