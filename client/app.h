// The command line as a whole: parse, run, report.
#pragma once

#include "client/commands/command.h"

namespace latentforge::client {

// Runs `latentforge ARGUMENTS` and returns its exit status. Data goes to standard
// output, everything else to the context's terminal.
int RunApp(int argc, const char* const* argv, const CommandContext& context);

}  // namespace latentforge::client
