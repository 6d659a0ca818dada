// What it is: topic patterns that somebody has written, looked at for the usual mistakes.
// Who calls it: create_route, alter_route, allow.
// Never: refuses what some topic may fit.
#pragma once

namespace eventbus::catalog {

// What was meant for another argument, or is quoted, would be patterns that no topic fits: 22023.
void refuse_what_is_no_pattern(const char* topics);
// A NOTICE for each pattern that has a character of another notation: a slash, a blank, a percent sign. 22023 where the
// patterns cannot be read.
void tell_of_odd_patterns(const char* topics);

}  // namespace eventbus::catalog
