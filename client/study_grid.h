// Which conversions a study makes: rows of settings, each at every ratio.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/spec_flags.h"
#include "latentforge/v1/spec.pb.h"

namespace latentforge::client {

// What was typed. Lists are texts of values, as flags of `convert` take them one at a time; an
// empty list means: its default.
struct StudyFlags {
  SpecFlags spec;  // what all conversions share: model, texts, computation; no output
  std::vector<std::string> ratios;
  // Rows: every combination of these. Without any of them, or with `named_rows` besides, the rows
  // of the LatentLLM slides and the one that this program does by default.
  std::vector<std::string> preconditioners;
  std::vector<std::string> query_key;
  std::vector<std::string> value_output;
  bool named_rows = false;
  // Each row is repeated for every combination of these.
  std::vector<std::string> factor_layouts;
  std::vector<std::string> mlp;
  std::vector<std::string> bias_update;  // "off", "on"
  std::vector<std::string> activations;
};

struct StudyCell {
  std::string row;  // "RootCov", "root-covariance, joint query-key"
  double ratio = 0;
  v1::JobSpec spec;  // every setting of the method said; no output
};

struct StudyGrid {
  std::vector<std::string> rows;  // in the order of the table, without repetitions
  std::vector<double> ratios;     // rising
  // In the order in which they run: those whose statistics serve all others first.
  std::vector<StudyCell> cells;
};

// InvalidArgument names the flag, the value and what was expected: values that are unknown, out of
// range or given twice, a joint mode without root-covariance, and all that BuildDraft refuses.
absl::StatusOr<StudyGrid> BuildGrid(const StudyFlags& flags, const FileAccess& files);

}  // namespace latentforge::client
