// What every command gets, and how it is called.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "base/clock.h"
#include "client/spec_flags.h"
#include "client/terminal.h"

namespace latentforge::client {

// The surroundings of a command; borrowed, and outlives it.
struct CommandContext {
  Terminal& terminal;  // standard error
  Clock& clock;
  FileAccess files;
  GetEnvironment environment;
  std::string program = "latentforge";  // how to call it (client/program_name.h)
};

// A command as its flags have set it up. The status becomes message and exit
// status (client/error.h).
using Command = std::function<absl::Status()>;

// What the parser found out.
struct Selection {
  Command command;
};

}  // namespace latentforge::client
