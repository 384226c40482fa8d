#include "worker/factorize/global_ranks.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::factorize {
namespace {

int64_t Sum(const std::vector<int64_t>& ranks) {
  return std::accumulate(ranks.begin(), ranks.end(), int64_t{0});
}

absl::Status CheckOptions(const GlobalRankOptions& options) {
  if (options.floor < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank floor is ", options.floor, ", expected at least 1"));
  }
  if (options.multiple < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank multiple is ", options.multiple, ", expected at least 1"));
  }
  return absl::OkStatus();
}

absl::Status CheckSpectra(const Spectra& spectra) {
  if (spectra.empty()) return absl::InvalidArgumentError("there are no latents to give ranks to");
  bool any = false;
  for (size_t problem = 0; problem < spectra.size(); ++problem) {
    const std::vector<double>& spectrum = spectra[problem];
    if (spectrum.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("spectrum ", problem, " is empty"));
    }
    for (size_t i = 0; i < spectrum.size(); ++i) {
      const bool ordered = i == 0 || spectrum[i] <= spectrum[i - 1];
      if (std::isfinite(spectrum[i]) && spectrum[i] >= 0 && ordered) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("spectrum ", problem, ": value ", i, " is ", spectrum[i],
                       ", expected finite values of at least 0, none above the one before"));
    }
    any = any || spectrum[0] > 0;
  }
  if (any) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "all spectra are zero: the loss depends on no key and no value, expected weights of "
      "attention and output that are not all zero");
}

// Every problem's least rank, for a floor that is a multiple.
std::vector<int64_t> Floors(const Spectra& spectra, int64_t floor) {
  std::vector<int64_t> floors;
  for (const auto& spectrum : spectra) floors.push_back(std::min(floor, int64_t(spectrum.size())));
  return floors;
}

// The options with both numbers at most the widest latent, which changes nothing
// but keeps sums far from overflow, and the floor a multiple.
GlobalRankOptions Normalised(const Spectra& spectra, GlobalRankOptions options) {
  int64_t widest = 0;
  for (const auto& spectrum : spectra) widest = std::max(widest, int64_t(spectrum.size()));
  options.multiple = std::min(options.multiple, widest);
  options.floor = std::min(options.floor, widest);
  options.floor = (options.floor + options.multiple - 1) / options.multiple * options.multiple;
  return options;
}

absl::StatusOr<std::vector<int64_t>> FittingFloors(int64_t values, const Spectra& spectra,
                                                   const GlobalRankOptions& options) {
  for (int64_t floor = options.floor; floor >= options.multiple; floor -= options.multiple) {
    std::vector<int64_t> floors = Floors(spectra, floor);
    if (Sum(floors) <= values) return floors;
  }
  return absl::OutOfRangeError(
      absl::StrCat("the budget is ", values, " cached values a token, expected at least ",
                   Sum(Floors(spectra, options.multiple)), ", a rank of ", options.multiple,
                   " for each of ", spectra.size(), " latents"));
}

std::vector<int64_t> Greedy(std::vector<int64_t> ranks, int64_t left, const Spectra& spectra,
                            int64_t multiple) {
  const auto size_of_next = [&](int64_t problem) {
    return std::min(multiple, int64_t(spectra[problem].size()) - ranks[problem]);
  };
  // Highest mean first, then the earliest problem.
  std::priority_queue<std::pair<double, int64_t>> queue;
  const auto push = [&](int64_t problem) {
    const int64_t size = size_of_next(problem);
    if (size == 0) return;
    const auto first = spectra[problem].begin() + ranks[problem];
    queue.emplace(std::accumulate(first, first + size, 0.0) / double(size), -problem);
  };
  for (size_t problem = 0; problem < ranks.size(); ++problem) push(int64_t(problem));
  while (left > 0 && !queue.empty()) {
    const int64_t problem = -queue.top().second;
    queue.pop();
    const int64_t size = size_of_next(problem);
    // A shorter last group of another problem may still fit.
    if (size > left) continue;
    ranks[problem] += size;
    left -= size;
    push(problem);
  }
  return ranks;
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> AllocateGlobally(int64_t values, const Spectra& spectra,
                                                      const GlobalRankOptions& options) {
  LF_RETURN_IF_ERROR(CheckOptions(options));
  LF_RETURN_IF_ERROR(CheckSpectra(spectra));
  const GlobalRankOptions normal = Normalised(spectra, options);
  LF_ASSIGN_OR_RETURN(std::vector<int64_t> floors, FittingFloors(values, spectra, normal));
  const int64_t left = values - Sum(floors);
  return Greedy(std::move(floors), left, spectra, normal.multiple);
}

double PredictedLoss(const Spectra& spectra, const std::vector<int64_t>& ranks) {
  double loss = 0;
  for (size_t problem = 0; problem < spectra.size(); ++problem) {
    const std::vector<double>& spectrum = spectra[problem];
    const int64_t rank = problem < ranks.size() ? ranks[problem] : 0;
    const int64_t kept = std::clamp<int64_t>(rank, 0, int64_t(spectrum.size()));
    loss += std::accumulate(spectrum.rbegin(), spectrum.rend() - kept, 0.0);
  }
  return 0.5 * loss;
}

absl::StatusOr<std::vector<std::pair<int64_t, double>>> LossCurve(const Spectra& spectra,
                                                                  const GlobalRankOptions& options,
                                                                  int64_t points) {
  if (points < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("the curve has ", points, " points, expected at least 2"));
  }
  LF_RETURN_IF_ERROR(CheckOptions(options));
  LF_RETURN_IF_ERROR(CheckSpectra(spectra));
  const int64_t most = [&] {
    int64_t sum = 0;
    for (const auto& spectrum : spectra) sum += int64_t(spectrum.size());
    return sum;
  }();
  const int64_t least = Sum(Floors(spectra, Normalised(spectra, options).floor));
  const int64_t steps = std::min(points - 1, std::max<int64_t>(most - least, 1));
  std::vector<std::pair<int64_t, double>> curve;
  for (int64_t step = 0; step <= steps; ++step) {
    const double share = double(step) / double(steps);
    const int64_t values = least + int64_t(std::llround(share * double(most - least)));
    LF_ASSIGN_OR_RETURN(const std::vector<int64_t> ranks,
                        AllocateGlobally(values, spectra, options));
    if (!curve.empty() && curve.back().first >= Sum(ranks)) continue;
    curve.emplace_back(Sum(ranks), PredictedLoss(spectra, ranks));
  }
  return curve;
}

}  // namespace latentforge::factorize
