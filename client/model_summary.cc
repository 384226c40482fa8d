#include "client/model_summary.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "checkpoint/tokenizer_file.h"
#include "client/text_format.h"

namespace latentforge::client {
namespace {

std::string BudgetTable(const checkpoint::ModelSummary& summary) {
  std::vector<std::vector<std::string>> rows;
  for (const checkpoint::BudgetOption& option : summary.budgets) {
    if (!option.feasible) {
      rows.push_back({option.label, "not feasible", ""});
      continue;
    }
    rows.push_back(
        {option.label, absl::StrCat(option.uniform_rank), FormatCount(option.bytes_per_token)});
  }
  return FormatTable({"kv budget", "uniform rank of K and of V", "KV bytes a token"}, rows);
}

std::string TokenizerProblem(const absl::Status& status) {
  return absl::IsNotFound(status)
             ? absl::StrCat("missing: there is no ", checkpoint::kTokenizerFile)
             : Printable(std::string(status.message()));
}

}  // namespace

std::string ModelTable(const checkpoint::ModelSummary& summary) {
  const checkpoint::ModelConfig& config = summary.config;
  std::vector<std::vector<std::string>> rows = {
      {"path", Printable(summary.path)},
      {"family", summary.converted ? absl::StrCat(summary.family, ", converted by latentforge")
                                   : summary.family},
      {"tokenizer",
       summary.tokenizer.ok() ? checkpoint::kTokenizerFile : TokenizerProblem(summary.tokenizer)},
      {"parameters", FormatCount(summary.parameters)},
      {"weights", absl::StrCat(FormatBytes(summary.weight_bytes), " in ",
                               absl::StrJoin(summary.dtypes, ", "))},
      {"layers", absl::StrCat(config.num_layers)},
      {"hidden size", absl::StrCat(config.hidden_size)},
      {"attention", absl::StrCat(summary.attention, ", ", config.num_heads, " heads, ",
                                 config.num_kv_heads, " KV heads of ", config.head_dim)},
      {"vocabulary", FormatCount(config.vocab_size)},
      {"context", FormatCount(config.max_position_embeddings)},
      {"KV cache a token", absl::StrCat(FormatCount(summary.kv_bytes_per_token), " bytes in ",
                                        checkpoint::NameOf(summary.cache_dtype))}};
  if (summary.layers_with_window > 0) {
    rows.push_back({"sliding window", absl::StrCat(summary.layers_with_window, " layers")});
  }
  if (summary.converted && summary.kv_bytes_per_token_dense > 0) {
    rows.push_back({"share of the original",
                    absl::StrFormat("%.1f %%", 100.0 * summary.kv_bytes_per_token /
                                                   summary.kv_bytes_per_token_dense)});
  }
  std::string text = FormatTable({}, rows);
  if (!summary.budgets.empty()) absl::StrAppend(&text, "\n", BudgetTable(summary));
  return text;
}

Json ModelJson(const checkpoint::ModelSummary& summary) {
  const checkpoint::ModelConfig& config = summary.config;
  Json json = {{"path", summary.path},
               {"family", summary.family},
               {"model_type", summary.model_type},
               {"converted", summary.converted},
               {"tokenizer_problem", std::string(summary.tokenizer.message())},
               {"parameters", summary.parameters},
               {"weight_bytes", summary.weight_bytes},
               {"dtypes", summary.dtypes},
               {"num_layers", config.num_layers},
               {"hidden_size", config.hidden_size},
               {"num_heads", config.num_heads},
               {"num_kv_heads", config.num_kv_heads},
               {"head_dim", config.head_dim},
               {"vocab_size", config.vocab_size},
               {"max_position_embeddings", config.max_position_embeddings},
               {"attention", summary.attention},
               {"layers_with_window", summary.layers_with_window},
               {"kv_values_per_token", summary.kv_values_per_token},
               {"kv_bytes_per_token", summary.kv_bytes_per_token},
               {"kv_bytes_per_token_dense", summary.kv_bytes_per_token_dense},
               {"budgets", Json::array()}};
  for (const checkpoint::BudgetOption& option : summary.budgets) {
    json["budgets"].push_back({{"label", option.label},
                               {"budget", option.budget},
                               {"feasible", option.feasible},
                               {"uniform_rank", option.uniform_rank},
                               {"rank_total_k", option.rank_totals.k},
                               {"rank_total_v", option.rank_totals.v},
                               {"kv_bytes_per_token", option.bytes_per_token}});
  }
  return json;
}

}  // namespace latentforge::client
