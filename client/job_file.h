// Job files (YAML or JSON) and --set: the fields of latentforge.v1.JobSpec under
// their proto3 JSON names, and `labels`.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "latentforge/v1/spec.pb.h"

namespace latentforge::client {

inline constexpr int64_t kMaxJobFileBytes = 1 << 20;

// What a user wants to submit.
struct JobDraft {
  v1::JobSpec spec;
  std::map<std::string, std::string> labels;
};

// Merges the text of a job file into `draft`. `name` is its name in messages.
// InvalidArgument "NAME:LINE:COLUMN: ..." for broken YAML, unknown or repeated
// keys and values of the wrong type, and for more than kMaxJobFileBytes.
absl::Status MergeJobFile(absl::string_view text, absl::string_view name, JobDraft* draft);

// Applies one --set: "budget.kvBudget=0.5", "calibration.corpora.0.weight=2",
// "labels.team=x". The value may be YAML where the field is a message or a list.
// A list index equal to its length appends. InvalidArgument names the setting.
absl::Status ApplySetting(absl::string_view setting, JobDraft* draft);

}  // namespace latentforge::client
