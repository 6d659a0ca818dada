// What it is: whether the current role may publish a topic (eventbus.allow).
// Who calls it: publish.
// Never: reads a table where nothing has changed since it last did.
#pragma once

#include <string_view>

namespace eventbus::intake {

// Errors where the current role, or a role whose privileges it has, has topic grants and none of them matches.
void check_allowed(std::string_view topic);

}  // namespace eventbus::intake
