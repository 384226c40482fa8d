#include "worker/factorize/rank_allocation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::factorize {
namespace {

absl::Status CheckBudget(double budget) {
  if (std::isfinite(budget) && budget > 0 && budget <= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("budget is ", budget, ", expected more than 0 and at most 1"));
}

// The score of CARE's greedy step for every layer.
class CareScore {
 public:
  CareScore(RankAllocation allocation, const Spectra& spectra, int64_t start)
      : code_(allocation == RankAllocation::kCareCode), start_(start), spectra_(spectra) {
    for (const std::vector<double>& spectrum : spectra) {
      std::vector<double> tail(spectrum.size() + 1, 0.0);
      for (size_t i = spectrum.size(); i-- > 0;) tail[i] = tail[i + 1] + spectrum[i];
      tails_.push_back(std::move(tail));
    }
  }

  // What raising `layer` from rank to rank + 1 is worth.
  double operator()(size_t layer, int64_t rank) const {
    const std::vector<double>& tail = tails_[layer];
    if (!(tail[0] > 0)) return 0;
    const double next = spectra_[layer][rank] / tail[0];
    const double rest = tail[rank] / tail[0];
    if (!code_) return rest > 0 ? next / rest : 0;
    const double layers = double(spectra_.size());
    const double depth = std::sqrt((layers - double(layer)) / ((layers + 1) / 2));
    const double cost = std::sqrt(double(rank) / double(start_));
    return next / std::max(rest, 1e-12) * depth / cost;
  }

 private:
  bool code_;
  int64_t start_;
  const Spectra& spectra_;
  std::vector<std::vector<double>> tails_;
};

std::vector<int64_t> Greedy(const CareScore& score, std::vector<int64_t> ranks,
                            const std::vector<int64_t>& caps, int64_t total) {
  // Highest score first, then the earliest layer.
  using Entry = std::pair<double, int64_t>;
  std::priority_queue<Entry> queue;
  const auto push = [&](int64_t layer) {
    if (ranks[layer] < caps[layer]) queue.emplace(score(layer, ranks[layer]), -layer);
  };
  for (size_t layer = 0; layer < ranks.size(); ++layer) push(int64_t(layer));
  int64_t left = total - std::accumulate(ranks.begin(), ranks.end(), int64_t{0});
  for (; left > 0 && !queue.empty(); --left) {
    const int64_t layer = -queue.top().second;
    queue.pop();
    ++ranks[layer];
    push(layer);
  }
  return ranks;
}

// The rank of every layer as a multiple or its full width.
absl::StatusOr<std::vector<int64_t>> RoundDown(int64_t rank, const std::vector<int64_t>& widths,
                                               int64_t multiple) {
  std::vector<int64_t> ranks;
  for (const int64_t width : widths) {
    ranks.push_back(rank == width ? width : rank / multiple * multiple);
    if (ranks.back() > 0) continue;
    return absl::OutOfRangeError(absl::StrCat("the budget leaves a layer ", rank, " of ", width,
                                              " values, expected at least one rank multiple of ",
                                              multiple));
  }
  return ranks;
}

}  // namespace

int64_t ValuesWithin(double budget, int64_t values) {
  return static_cast<int64_t>(std::floor(budget * double(values) * (1 + 1e-12)));
}

absl::StatusOr<std::vector<int64_t>> AllocateRanks(RankAllocation allocation, double budget,
                                                   const Spectra& spectra, int64_t multiple) {
  LF_RETURN_IF_ERROR(CheckBudget(budget));
  if (multiple < 1 || (multiple > 1 && allocation != RankAllocation::kUniform)) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank multiple is ", multiple, ", expected 1, or more with uniform ranks"));
  }
  if (allocation == RankAllocation::kGlobal) {
    return absl::InvalidArgumentError(
        "global ranks are not divided within one projection kind, expected another allocation");
  }
  if (spectra.empty())
    return absl::InvalidArgumentError("there are no layers to divide ranks over");
  std::vector<int64_t> widths;
  for (const auto& spectrum : spectra) widths.push_back(int64_t(spectrum.size()));
  const int64_t narrowest = *std::min_element(widths.begin(), widths.end());
  const int64_t uniform = ValuesWithin(budget, narrowest);
  if (uniform < 1) {
    return absl::OutOfRangeError(absl::StrCat(
        "budget is ", budget, ", which leaves less than one value of ", narrowest,
        " in a layer; expected at least ", 1.0 / double(std::max<int64_t>(narrowest, 1))));
  }
  if (allocation == RankAllocation::kUniform) {
    return RoundDown(uniform, widths, multiple);
  }
  const bool code = allocation == RankAllocation::kCareCode;
  const int64_t start = std::max<int64_t>(1, uniform / (code ? 2 : 4));
  std::vector<int64_t> caps = widths;
  if (code) {
    for (int64_t& cap : caps) cap = std::min(cap, 2 * uniform);
  }
  const int64_t total =
      ValuesWithin(budget, std::accumulate(widths.begin(), widths.end(), int64_t{0}));
  return Greedy(CareScore(allocation, spectra, start), std::vector<int64_t>(spectra.size(), start),
                caps, total);
}

namespace {

absl::Status CheckLayer(const LayerRanks& ranks, int64_t layer, int64_t width, bool joint) {
  const auto check = [&](const char* name, int64_t rank, int64_t most) {
    // A profile is all joint or all separate: the other ranks are 0.
    const int64_t least = most > 0 ? 1 : 0;
    if (rank >= least && rank <= most) return absl::OkStatus();
    return absl::OutOfRangeError(
        absl::StrCat("rank profile: layer ", layer, ": ", name, " is ", rank, ", expected ",
                     most > 0 ? absl::StrCat("1 to the width ", most)
                              : absl::StrCat("none in a ", joint ? "joint" : "separate", " one")));
  };
  LF_RETURN_IF_ERROR(check("rankK", ranks.key, joint ? 0 : width));
  LF_RETURN_IF_ERROR(check("rankV", ranks.value, joint ? 0 : width));
  return check("rankKv", ranks.joint, joint ? 2 * width : 0);
}

}  // namespace

absl::Status CheckProfile(const RankProfile& profile, int64_t layers, int64_t width, bool joint,
                          double budget) {
  LF_RETURN_IF_ERROR(CheckBudget(budget));
  if (int64_t(profile.size()) != layers) {
    return absl::OutOfRangeError(absl::StrCat("rank profile has ", profile.size(),
                                              " layers, expected the model's ", layers));
  }
  int64_t total = 0;
  for (int64_t layer = 0; layer < layers; ++layer) {
    LF_RETURN_IF_ERROR(CheckLayer(profile[layer], layer, width, joint));
    total += profile[layer].key + profile[layer].value + profile[layer].joint;
  }
  const int64_t allowed = ValuesWithin(budget, 2 * layers * width);
  if (total > allowed) {
    return absl::OutOfRangeError(absl::StrCat("rank profile caches ", total,
                                              " values a token, expected at most ", allowed,
                                              " (budget ", budget, ")"));
  }
  return absl::OkStatus();
}

}  // namespace latentforge::factorize
