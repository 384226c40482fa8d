#include "worker/convert/phase_search.h"

#include <cmath>
#include <filesystem>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "checkpoint/kv_budget.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/phase_files.h"
#include "worker/factorize/budget_search.h"

namespace latentforge::convert {
namespace {

using factorize::BudgetSearch;

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// What earlier attempts measured; empty when the file is absent or not as it was written.
std::vector<BudgetSearch::Measurement> LoadMeasured(const std::filesystem::path& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return {};
  const absl::StatusOr<Json> json = ParseJson(*text);
  if (!json.ok() || !json->is_array()) return {};
  std::vector<BudgetSearch::Measurement> measured;
  for (const Json& entry : *json) {
    if (!entry.is_object() || !entry.contains("values") || !entry.contains("loss") ||
        !entry["values"].is_number_integer() ||
        !(entry["loss"].is_number() || entry["loss"].is_null())) {
      return {};
    }
    const double loss = entry["loss"].is_null() ? kInfinite : entry["loss"].get<double>();
    measured.push_back({entry["values"].get<int64_t>(), loss});
  }
  return measured;
}

absl::Status SaveMeasured(const std::filesystem::path& path, const BudgetSearch& search) {
  Json json = Json::array();
  for (const BudgetSearch::Measurement& measured : search.measurements()) {
    // JSON has no infinity.
    const Json loss = std::isfinite(measured.loss) ? Json(measured.loss) : Json(nullptr);
    json.push_back({{"values", measured.values}, {"loss", loss}});
  }
  return WriteFileAtomic(path, WriteJson(json, 2) + "\n");
}

// Nobody knows how many there will be: every measurement takes a quarter of what is left.
PhasePart PartOf(size_t measurement) {
  const auto after = [](size_t count) {
    return kSearchShare * (1 - std::pow(0.75, double(count)));
  };
  return {after(measurement), after(measurement + 1)};
}

// One search; borrows everything.
class Search {
 public:
  Search(Attempt& attempt, const Inputs& inputs, LayerFactorizer& factorizer)
      : attempt_(attempt),
        inputs_(inputs),
        factorizer_(factorizer),
        whole_(checkpoint::KvValuesPerToken(inputs.checkpoint.config())) {}

  absl::StatusOr<FoundBudget> Run() {
    LF_ASSIGN_OR_RETURN(auto curve, factorizer_.Curve());
    BudgetSearch search(std::move(curve), std::log(attempt_.spec.max_perplexity_ratio));
    for (const auto& measured : LoadMeasured(SearchPath(attempt_.work))) search.Add(measured);
    while (const std::optional<int64_t> values = search.Next()) {
      LF_ASSIGN_OR_RETURN(const double loss, Measure(*values, search.measurements().size()));
      search.Add({*values, loss});
      LF_RETURN_IF_ERROR(SaveMeasured(SearchPath(attempt_.work), search));
      attempt_.events.Info(absl::StrFormat(
          "%.1f %% of the cache: perplexity ratio %.4f, %s %g", 100 * Budget(*values),
          std::exp(loss), loss <= std::log(attempt_.spec.max_perplexity_ratio) ? "within" : "above",
          attempt_.spec.max_perplexity_ratio));
    }
    // A candidate's may be left from an attempt that was killed.
    std::error_code error;
    if (!std::filesystem::exists(RanksPath(attempt_.work), error))
      LF_RETURN_IF_ERROR(DropFactors());
    LF_RETURN_IF_ERROR(KeepWindows(search.Best()));
    FoundBudget found{.kv_budget = Budget(search.Best())};
    for (const auto& measured : search.measurements()) {
      if (std::isfinite(measured.loss)) found.measured.emplace_back(measured.values, measured.loss);
    }
    return found;
  }

 private:
  double Budget(int64_t values) const { return double(values) / double(whole_); }

  static std::string NameOf(int64_t values) { return absl::StrCat("candidate-", values); }

  // The log of the perplexity ratio. A tenth of its part is factorisation.
  absl::StatusOr<double> Measure(int64_t values, size_t index) {
    const PhasePart part = PartOf(index);
    LF_RETURN_IF_ERROR(DropFactors());
    LF_ASSIGN_OR_RETURN(const factorize::RankProfile ranks, factorizer_.Allocate(Budget(values)));
    LF_RETURN_IF_ERROR(FactorizeAll(attempt_, factorizer_, ranks, {part.begin, part.At(0.1)}));
    // Only the first candidate's takes time: its windows are kept.
    const double middle = part.At(index == 0 ? 0.55 : 0.1);
    LF_ASSIGN_OR_RETURN(const evaluate::PerplexityResult base,
                        MeasurePerplexity(attempt_, inputs_,
                                          {.kind = PerplexityKind::kBase,
                                           .name = "base",
                                           .part = {part.At(0.1), middle},
                                           .announce = index == 0}));
    const absl::StatusOr<evaluate::PerplexityResult> candidate =
        MeasurePerplexity(attempt_, inputs_,
                          {.kind = PerplexityKind::kConverted,
                           .name = NameOf(values),
                           .part = {middle, part.end},
                           .announce = false});
    LF_ASSIGN_OR_RETURN(const double loss, CandidateLoss(candidate, base.perplexity));
    if (!candidate.ok()) {
      Log(Severity::kWarning, "a cache of the search fails: its evaluation is not finite",
          {{"values_per_token", absl::StrCat(values)},
           {"error", std::string(candidate.status().message())}});
    }
    LF_RETURN_IF_ERROR(DropFactors());
    return loss;
  }

  // The same factors on the same windows: the evaluation need not measure them again.
  absl::Status KeepWindows(int64_t values) const {
    const std::filesystem::path measured = WindowsPath(attempt_.work, NameOf(values));
    const std::filesystem::path wanted =
        WindowsPath(attempt_.work, attempt_.spec.healing ? "factorized" : "converted");
    std::error_code error;
    // Absent for the whole cache, and where an earlier attempt has been here.
    if (!std::filesystem::exists(measured, error)) return absl::OkStatus();
    std::filesystem::rename(measured, wanted, error);
    return error ? ErrnoStatus(error.value(), "rename", measured) : absl::OkStatus();
  }

  // Of one candidate, so that they are not taken for the next one's.
  absl::Status DropFactors() {
    LF_RETURN_IF_ERROR(RemoveTree(attempt_.work.factorize()));
    return CreateDirectories(attempt_.work.factorize());
  }

  Attempt& attempt_;
  const Inputs& inputs_;
  LayerFactorizer& factorizer_;
  int64_t whole_;
};

}  // namespace

absl::StatusOr<double> CandidateLoss(const absl::StatusOr<evaluate::PerplexityResult>& candidate,
                                     double perplexity_base) {
  if (!candidate.ok()) {
    const bool numerical = DescribeError(candidate.status()).reason == "NUMERICAL_FAILURE";
    return numerical ? absl::StatusOr<double>(kInfinite) : candidate.status();
  }
  const double loss = std::log(candidate->perplexity / perplexity_base);
  return std::isfinite(loss) ? loss : kInfinite;
}

absl::StatusOr<FoundBudget> SearchBudget(Attempt& attempt, const Inputs& inputs,
                                         LayerFactorizer& factorizer) {
  return Search(attempt, inputs, factorizer).Run();
}

}  // namespace latentforge::convert
