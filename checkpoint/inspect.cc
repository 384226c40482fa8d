#include "checkpoint/inspect.h"

#include <algorithm>

#include "checkpoint/tensor_catalogue.h"
#include "checkpoint/tokenizer_file.h"

namespace latentforge::checkpoint {
namespace {

struct NamedBudget {
  const char* label;
  double budget;
};

constexpr NamedBudget kBudgets[] = {
    {"2/3", 2.0 / 3}, {"1/2", 0.5}, {"1/3", 1.0 / 3}, {"1/4", 0.25}};

std::string AttentionKind(const ModelConfig& config) {
  if (config.num_kv_heads == config.num_heads) return "MHA";
  return config.num_kv_heads == 1 ? "MQA" : "GQA";
}

BudgetOption OptionFor(const ModelConfig& config, const NamedBudget& named, DType cache_dtype) {
  BudgetOption option{.label = named.label, .budget = named.budget};
  const absl::StatusOr<RankTotals> totals = RankTotalsForBudget(config, named.budget);
  if (!totals.ok()) return option;
  option.feasible = true;
  option.rank_totals = *totals;
  option.uniform_rank = totals->k / config.num_layers;
  option.bytes_per_token = (totals->k + totals->v) * BytesOf(cache_dtype);
  return option;
}

}  // namespace

ModelSummary Summarize(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  ModelSummary summary;
  summary.path = checkpoint.dir().string();
  summary.tokenizer = CheckTokenizerFile(checkpoint.dir());
  summary.family = std::string(FamilyName(config.family));
  summary.model_type = config.model_type;
  summary.converted = config.converted();
  summary.parameters = NumParameters(config);
  summary.weight_bytes = checkpoint.total_bytes();
  summary.dtypes = checkpoint.dtype_names();
  summary.config = config;
  summary.attention = AttentionKind(config);
  summary.layers_with_window =
      std::count_if(config.sliding_window.begin(), config.sliding_window.end(),
                    [](const std::optional<int64_t>& window) { return window.has_value(); });
  summary.cache_dtype = config.dtype;
  summary.kv_values_per_token = KvValuesPerToken(config);
  summary.kv_bytes_per_token = KvBytesPerToken(config, config.dtype);
  summary.kv_bytes_per_token_dense =
      2 * config.kv_width() * config.num_layers * BytesOf(config.dtype);
  if (summary.converted) return summary;
  for (const NamedBudget& named : kBudgets) {
    summary.budgets.push_back(OptionFor(config, named, config.dtype));
  }
  return summary;
}

std::vector<std::pair<std::string, Json>> ConfigFacts(absl::string_view config_json) {
  // The keys of Llama and its kin, of OPT, and of GPT-2 and its kin.
  static constexpr const char* kKeys[] = {"model_type",          "architectures",
                                          "hidden_size",         "n_embd",
                                          "num_hidden_layers",   "n_layer",
                                          "num_attention_heads", "n_head",
                                          "num_key_value_heads", "head_dim",
                                          "intermediate_size",   "ffn_dim",
                                          "vocab_size",          "max_position_embeddings",
                                          "torch_dtype",         "dtype"};
  std::vector<std::pair<std::string, Json>> facts;
  const absl::StatusOr<Json> config = ParseJson(config_json);
  if (!config.ok() || !config->is_object()) return facts;
  for (const char* key : kKeys) {
    if (config->contains(key)) facts.emplace_back(key, (*config)[key]);
  }
  return facts;
}

}  // namespace latentforge::checkpoint
