// What it is: durations as people write them: 90, "90 s", "15 minutes", "1 hour 30 min", "00:15:00".
// Who calls it: whoever reads options of brokers and routes.
// Never: knows an option, or which durations make sense for it.
#pragma once

#include <optional>
#include <string_view>

namespace eventbus {

// In seconds. A number alone is seconds; units are those of PostgreSQL's settings and intervals up to weeks, in either
// case, and add up. nullopt: it is none of that, or negative.
std::optional<double> read_duration(std::string_view text);

inline constexpr const char* duration_form =
    "a number of seconds, or a text with units of ms, s, min, h, d or weeks, such as \"90 s\", \"15 minutes\" or \"1 "
    "hour 30 min\"";

}  // namespace eventbus
