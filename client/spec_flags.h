// The flags of `convert` and `job submit`, and how they become a JobSpec.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/job_file.h"
#include "client/low_rank_flags.h"

namespace latentforge::client {

// What was typed; absent means: leave it to the job file, then to the server.
struct SpecFlags {
  std::optional<std::string> model;
  std::optional<std::string> out;
  std::optional<std::string> method;
  std::optional<double> kv_budget;
  std::optional<double> max_perplexity_ratio;
  std::optional<std::string> preconditioner;
  std::optional<double> damping;
  std::optional<double> alpha;
  std::optional<std::string> allocation;
  std::optional<std::string> latent;
  std::optional<double> sink_weight;
  std::optional<int32_t> rank_multiple;
  bool anchored = false;
  std::optional<std::string> rank_profile;
  LowRankFlags low_rank;
  std::vector<std::string> calibration;
  std::optional<std::string> calibration_text_field;
  std::optional<int32_t> calibration_sequences;
  std::optional<int32_t> sequence_length;
  std::optional<std::string> fisher_labels;
  std::optional<std::string> evaluate;
  std::optional<std::string> evaluate_text_field;
  std::optional<int32_t> evaluate_windows;
  std::optional<int32_t> window_length;
  std::optional<double> quality_gate;
  bool heal = false;
  std::optional<int64_t> heal_tokens;
  std::optional<double> heal_learning_rate;
  std::optional<std::string> heal_weights;
  std::optional<std::string> heal_optimizer;
  std::vector<std::string> heal_text;
  std::optional<uint64_t> seed;
  std::optional<std::string> dtype;
  std::optional<std::string> output_dtype;
  std::optional<std::string> device;
  std::optional<int32_t> threads;
  std::optional<std::string> deadline;
  std::optional<std::string> priority;
  std::optional<std::string> queue_deadline;
  std::optional<std::string> run_deadline;
  std::optional<std::string> ttl;
  std::vector<std::string> worker_labels;
  std::optional<std::string> job_file;
  std::vector<std::string> settings;
  std::vector<std::string> labels;
};

// Where flags meet the machine. `read` gives the text of a file of at most `max_bytes`, "-" being
// standard input; `exists` says whether a path exists.
struct FileAccess {
  std::filesystem::path current_folder;
  std::function<absl::StatusOr<std::string>(const std::string&, int64_t max_bytes)> read;
  std::function<bool(const std::filesystem::path&)> exists;
};

// The access of this process.
FileAccess LocalFileAccess();

// A file with a weight.
struct WeightedFile {
  std::string path;
  double weight = 0;  // 0: not given
};

// Splits FILE[:WEIGHT]. The whole text is the file when that exists; otherwise
// what follows the last colon is the weight. InvalidArgument, naming the flag, for a
// weight that is not a positive number.
absl::StatusOr<WeightedFile> ParseWeightedFile(absl::string_view flag, absl::string_view text,
                                               const FileAccess& files);

// Job file, then flags, then --set: the later wins. Paths become absolute file:
// URIs. InvalidArgument names the flag, or the flag or key that is missing.
absl::StatusOr<JobDraft> BuildDraft(const SpecFlags& flags, const FileAccess& files);

// NotFound, with the flag, when the model or a text of the draft is not on this
// machine.
absl::Status CheckLocalInputs(const JobDraft& draft, const FileAccess& files);

}  // namespace latentforge::client
