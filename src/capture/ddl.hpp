// What it is: the text of the utility command that is being run, for events of DDL.
// Who calls it: the utility hook, which knows; the event trigger function, which is not told.
// Never: outlives the command.
#pragma once

namespace eventbus::capture {

struct RunningCommand {
    const char* query;  // where it stands, perhaps among others; nullptr: unknown
    int location;       // negative: at the beginning
    int length;         // 0: to the end
};
extern RunningCommand running_command;

}  // namespace eventbus::capture
