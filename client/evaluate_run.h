// `latentforge evaluate`: perplexity of a checkpoint or an artifact, on this machine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/json.h"
#include "client/commands/command.h"

namespace latentforge::client {

struct EvaluateOptions {
  std::string model;
  std::string text;
  std::optional<std::string> text_field;
  std::optional<int32_t> windows;
  std::optional<int32_t> window_length;
  std::optional<std::string> dtype;
  std::optional<std::string> device;
  std::optional<int32_t> threads;
  std::string output = "table";
};

// The command line of the compute process.
std::vector<std::string> EvaluateCommandLine(const EvaluateOptions& options,
                                             const std::filesystem::path& program);

// What `latentforge-convert evaluate` measured, for people.
std::string FiguresTable(const Json& figures);

// Runs it, shows its events, prints what it measured. Cancelled after Ctrl-C.
absl::Status RunEvaluate(const EvaluateOptions& options, const CommandContext& context);

}  // namespace latentforge::client
