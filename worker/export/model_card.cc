#include "worker/export/model_card.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/json.h"
#include "base/version.h"

namespace latentforge::exporter {
namespace {

// "owner/name" as model hubs spell it.
bool LooksLikeHubName(absl::string_view name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  return parts.size() == 2 && std::all_of(parts.begin(), parts.end(), [](const std::string& part) {
           return !part.empty() && part.front() != '.' &&
                  std::all_of(part.begin(), part.end(), [](unsigned char c) {
                    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
                  });
         });
}

std::string HeadYaml(absl::string_view base_model, ArtifactKind kind) {
  // A JSON string is a YAML string.
  return absl::StrCat("---\nbase_model: ", WriteJson(std::string(base_model)),
                      "\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n"
                      "- latentforge\n",
                      kind == ArtifactKind::kLowRank ? "" : "- kv-cache-compression\n",
                      "- low-rank\n---\n\n");
}

absl::string_view WhatIsReplaced(ArtifactKind kind) {
  switch (kind) {
    case ArtifactKind::kSeparateLatents:
      return "The key and value projections of each layer are replaced by low-rank products; the "
             "cache holds one latent for keys and one for values per token and layer";
    case ArtifactKind::kJointLatent:
      return "The key and value projections of each layer are replaced by low-rank products; the "
             "cache holds one latent per token and layer from which both keys and values are "
             "expanded";
    case ArtifactKind::kLowRank:
      return "Linear maps of attention and MLP are replaced by low-rank products after LatentLLM "
             "(arXiv 2505.18413); the cache holds the latents of keys and values where their "
             "projections are among them";
  }
  return "";
}

// A text by its name: where it lies is nobody's business. `text` is a URI, or "held
// back from the end of URI".
std::string TextName(absl::string_view text) {
  const bool held_back = absl::ConsumePrefix(&text, "held back from the end of ");
  const std::string name(text.substr(text.rfind('/') + 1));
  return held_back ? absl::StrCat("the end of ", name, ", held back from calibration,") : name;
}

std::string FiguresTable(const Report& report) {
  const double ratio = static_cast<double>(report.kv_bytes_per_token_converted) /
                       static_cast<double>(report.kv_bytes_per_token_base);
  std::string table = "| | original | this checkpoint | ratio |\n|---|---|---|---|\n";
  if (report.perplexity_base.has_value() && report.perplexity_converted.has_value()) {
    absl::StrAppendFormat(&table, "| perplexity | %.4f | %.4f | %.4f |\n", *report.perplexity_base,
                          *report.perplexity_converted,
                          *report.perplexity_converted / *report.perplexity_base);
  }
  absl::StrAppendFormat(&table, "| key-value cache, bytes per token | %d | %d | %.4f |\n",
                        report.kv_bytes_per_token_base, report.kv_bytes_per_token_converted, ratio);
  absl::StrAppendFormat(&table, "| parameters | %d | %d | |\n\n", report.source.parameters,
                        report.parameters_converted);
  if (report.perplexity_base.has_value()) {
    absl::StrAppend(&table, "Perplexity over ", report.evaluation.windows,
                    report.evaluation.windows == 1 ? " window of " : " windows of ",
                    report.evaluation.window_length, " tokens of ",
                    TextName(report.evaluation.text), " in ", report.evaluation.dtype, ". ");
  }
  absl::StrAppend(&table, "Ranks and errors of every layer are in `report.json`.\n\n");
  return table;
}

std::string Pictures(const std::vector<Plot>& plots) {
  std::string text;
  for (const Plot& plot : plots) {
    absl::StrAppend(&text, "![", plot.caption, "](", plot.name, ")\n\n");
  }
  return text;
}

// How the layers were factorised, where it was not the usual way.
std::string Anchoring(const Report& report) {
  const Json::json_pointer anchored("/factorization/anchored");
  const bool is_anchored = report.settings.is_object() && report.settings.contains(anchored) &&
                           report.settings.at(anchored) == true;
  return is_anchored ? "They were fitted layer by layer to what the converted layers before "
                       "really feed each (the anchored pass). "
                     : "";
}

// What of the original is in the checkpoint as it was.
std::string OtherWeights(const Report& report) {
  if (!report.healing || report.healing->best_step == 0) {
    return "All other weights are the original's.";
  }
  return absl::StrCat("They were trained on ", report.healing->tokens,
                      " tokens to predict as the original does",
                      report.healing->weights == "attention"
                          ? ", together with the projections of queries and of attention's output. "
                          : ". ",
                      "All other weights are the original's.");
}

}  // namespace

std::string BaseModelName(absl::string_view source_config, absl::string_view uri) {
  const absl::StatusOr<Json> config = ParseJson(source_config);
  if (config.ok() && config->is_object()) {
    const auto name = config->find("_name_or_path");
    if (name != config->end() && name->is_string() && LooksLikeHubName(name->get<std::string>())) {
      return name->get<std::string>();
    }
  }
  while (absl::EndsWith(uri, "/")) uri.remove_suffix(1);
  return std::string(uri.substr(uri.rfind('/') + 1));
}

std::string ModelCard(const Report& report, absl::string_view base_model, ArtifactKind kind,
                      const std::vector<Plot>& plots) {
  return absl::StrCat(
      HeadYaml(base_model, kind), "# ", base_model,
      kind == ArtifactKind::kLowRank ? " with low-rank linear maps"
                                     : " with a latent key-value cache",
      "\n\nMade by latentforge ", kVersion, " from ", base_model, ". ", WhatIsReplaced(kind), ". ",
      Anchoring(report), OtherWeights(report), "\n\n", FiguresTable(report), Pictures(plots),
      "## Use\n\n"
      "```python\n"
      "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
      "model = AutoModelForCausalLM.from_pretrained(PATH, trust_remote_code=True)\n"
      "tokenizer = AutoTokenizer.from_pretrained(PATH, trust_remote_code=True)\n"
      "inputs = tokenizer(\"The sky is\", return_tensors=\"pt\")\n"
      "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=32)[0]))\n"
      "```\n\n"
      "`PATH` is this folder. The model code in it needs only torch and transformers.\n\n"
      "## Limits\n\n- ",
      kind == ArtifactKind::kLowRank ? "" : "The cache is smaller, the arithmetic is not: ",
      kind == ArtifactKind::kLowRank ? "Keys" : "keys",
      " depend on their position, so keys and values are expanded from the cached latents at every "
      "step, and that costs time and working memory that grow with the context.\n"
      "- Attention runs as `sdpa` or `eager`. Other engines do not know this layout.\n"
      "- Quality was measured on the text named above only. Licence and limits of the original "
      "apply.\n");
}

}  // namespace latentforge::exporter
