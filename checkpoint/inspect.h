// Everything that `latentforge model inspect` prints.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/kv_budget.h"

namespace latentforge::checkpoint {

// What one budget allows.
struct BudgetOption {
  std::string label;  // "2/3", "1/2", "1/3", "1/4"
  double budget = 0;
  bool feasible = false;        // false: the fields below are 0
  int64_t uniform_rank = 0;     // of K and of V in every layer
  RankTotals rank_totals;       // over all layers
  int64_t bytes_per_token = 0;  // of the totals
};

struct ModelSummary {
  std::string path;
  absl::Status tokenizer;  // why tokenizer.json is of no use; OK when it is
  std::string family;      // "llama", ...
  std::string model_type;  // as in config.json
  bool converted = false;  // an artifact of latentforge
  int64_t parameters = 0;
  int64_t weight_bytes = 0;
  std::vector<std::string> dtypes;  // of the tensors, sorted, without repetition
  ModelConfig config;
  std::string attention;             // "MHA", "GQA", "MQA"
  int64_t layers_with_window = 0;    // layers with a sliding window
  DType cache_dtype = DType::kBF16;  // that the two lines below count with
  int64_t kv_values_per_token = 0;
  int64_t kv_bytes_per_token = 0;
  int64_t kv_bytes_per_token_dense = 0;  // of the base architecture
  std::vector<BudgetOption> budgets;     // of the base architecture; empty for artifacts
};

ModelSummary Summarize(const Checkpoint& checkpoint);

// Family and sizes as a config.json names them, in this order, whatever it is a config of: what is
// worth seeing of a checkpoint that cannot be opened. Empty when the text is no JSON object.
std::vector<std::pair<std::string, Json>> ConfigFacts(absl::string_view config_json);

}  // namespace latentforge::checkpoint
