// The help of a command.
#pragma once

#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "client/commands/command.h"

namespace latentforge::client {

// The command's own help, whatever was parsed.
std::string HelpOf(const CLI::App& command);

// The first sentence of a description, which may begin with an example.
std::string Summary(const CLI::App& command);

// Adds `help [TOPIC...]`: the overview, a command such as "job submit", or exit-codes.
void AddHelpCommand(CLI::App* app, Selection* selection);

}  // namespace latentforge::client
