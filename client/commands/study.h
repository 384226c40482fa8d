// The command `latentforge study`.
#pragma once

#include "CLI/App.hpp"
#include "client/commands/command.h"

namespace latentforge::client {

// Adds it to `app`; parsing fills `selection`. Both borrow `context`.
void AddStudyCommand(CLI::App* app, const CommandContext& context, Selection* selection);

}  // namespace latentforge::client
