// The commands `evaluate`, `model`, `worker`, `health`, `version` and `help`.
#pragma once

#include "CLI/App.hpp"
#include "client/commands/command.h"

namespace latentforge::client {

// Add them to `app`; parsing fills `selection`. All borrow `context`.
void AddEvaluateCommand(CLI::App* app, const CommandContext& context, Selection* selection);
void AddInfoCommands(CLI::App* app, const CommandContext& context, Selection* selection);

}  // namespace latentforge::client
