// The commands `latentforge auth ...`.
#pragma once

#include "CLI/App.hpp"
#include "client/commands/command.h"

namespace latentforge::client {

// Adds them to `app`; parsing fills `selection`. Both borrow `context`.
void AddAuthCommands(CLI::App* app, const CommandContext& context, Selection* selection);

}  // namespace latentforge::client
