// `latentforge convert`: a whole conversion on this machine.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "client/commands/command.h"
#include "client/output.h"

namespace latentforge::client {

struct ConvertOptions {
  SpecFlags spec;
  std::string output = "table";
  std::optional<std::string> work_dir;
  bool keep_work = false;
};

// Starts a private server and worker, submits, follows, and prints the result.
// Cancelled (exit status 130) after Ctrl-C; JobOutcome of a job that ended.
absl::Status RunConvert(const ConvertOptions& options, const CommandContext& context);

}  // namespace latentforge::client
