// What it is: the text of a DDL command without what in it may be a secret.
// Who calls it: the event trigger of DDL.
// Never: guesses: text that it cannot read is left out as a whole.
#pragma once

namespace eventbus::capture {

// A copy of the command's text with *** in place of what stands in OPTIONS (…), what a trigger gives its function, the
// values of SET in a command that makes or alters a function, and, unless `bodies`, the bodies of functions with every
// string of the command that makes them.
char* without_secrets(const char* command, const char* tag, bool bodies);

}  // namespace eventbus::capture
