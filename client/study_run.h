// `latentforge study`: a grid of conversions by the method low_rank, on this machine.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "client/commands/command.h"
#include "client/study_grid.h"

namespace latentforge::client {

struct StudyOptions {
  StudyFlags flags;
  std::optional<std::string> out;
  std::string output = "table";  // json, jsonl or csv
  std::optional<std::string> work_dir;
  bool keep = false;  // the artifacts
};

// Runs the cells that FOLDER/cells.jsonl lacks, one job after the other in one private service,
// and prints the table of all. A cell that fails is recorded and the others run; at the end the
// command fails with exit status 3. Cancelled (exit status 130) after Ctrl-C: the same command
// goes on.
absl::Status RunStudy(const StudyOptions& options, const CommandContext& context);

}  // namespace latentforge::client
