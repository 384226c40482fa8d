// What every command gets, and how it is called.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "CLI/App.hpp"
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

// Makes the parser choose `run` with `options`, which the callback keeps alive.
template <typename Options>
void Choose(CLI::App* command, const std::shared_ptr<Options>& options,
            absl::Status (*run)(const Options&, const CommandContext&),
            const CommandContext& context, Selection* selection) {
  command->callback([options, run, &context, selection] {
    selection->command = [options, run, &context] { return run(*options, context); };
  });
}

}  // namespace latentforge::client
