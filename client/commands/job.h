// The commands `latentforge job ...`.
#pragma once

#include "CLI/App.hpp"
#include "client/commands/command.h"
#include "client/job_run.h"

namespace latentforge::client {

// Adds --server and -o; `formats` is what the help says about -o.
void AddServerOptions(CLI::App* app, ServerOptions* options, const std::string& formats);

// Adds them to `app`; parsing fills `selection`. Both borrow `context`.
void AddJobCommands(CLI::App* app, const CommandContext& context, Selection* selection);

}  // namespace latentforge::client
