#include "worker/factorize/budget_search.h"

#include <algorithm>
#include <cmath>

namespace latentforge::factorize {
namespace {

constexpr size_t kMostMeasurements = 8;
constexpr int64_t kPrecision = 100;  // parts of the whole cache
// The expansion of the loss promises too much; this is what it was measured to be off by.
constexpr double kFirstUnderestimate = 6;
// Aims a little inside the limit, so that a small error does not cost a measurement.
constexpr double kAim = 0.97;
// A loss within this factor of the limit: the answer is close by.
constexpr double kClose = 1.25;

}  // namespace

BudgetSearch::BudgetSearch(std::vector<std::pair<int64_t, double>> curve, double limit)
    : curve_(std::move(curve)), limit_(limit) {}

void BudgetSearch::Add(const Measurement& measurement) { measurements_.push_back(measurement); }

int64_t BudgetSearch::Best() const {
  int64_t best = curve_.back().first;
  for (const Measurement& measured : measurements_) {
    if (measured.loss <= limit_) best = std::min(best, measured.values);
  }
  return best;
}

// Just below the smallest cache there is, when none failed.
int64_t BudgetSearch::LargestFailing() const {
  int64_t largest = curve_.front().first - 1;
  for (const Measurement& measured : measurements_) {
    if (!(measured.loss <= limit_)) largest = std::max(largest, measured.values);
  }
  return largest;
}

double BudgetSearch::Predicted(int64_t values) const {
  const auto above = std::lower_bound(
      curve_.begin(), curve_.end(), values,
      [](const std::pair<int64_t, double>& point, int64_t size) { return point.first < size; });
  if (above == curve_.end()) return curve_.back().second;
  if (above == curve_.begin()) return above->second;
  const auto below = above - 1;
  const double share = double(values - below->first) / double(above->first - below->first);
  return below->second + share * (above->second - below->second);
}

// The smallest size of which no more than `loss` is predicted.
int64_t BudgetSearch::SizeOfPredicted(double loss) const {
  int64_t low = curve_.front().first, high = curve_.back().first;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (Predicted(middle) <= loss) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return high;
}

// Measured by predicted, of the measurement that is nearest to the limit.
double BudgetSearch::Underestimate() const {
  double nearest = kFirstUnderestimate;
  double distance = -1;
  for (const Measurement& measured : measurements_) {
    const double predicted = Predicted(measured.values);
    if (!(measured.loss > 0) || !std::isfinite(measured.loss) || !(predicted > 0)) continue;
    const double off = std::abs(std::log(measured.loss / limit_));
    if (distance >= 0 && off >= distance) continue;
    distance = off;
    nearest = measured.loss / predicted;
  }
  return nearest;
}

// Whether the loss of a measured size is close to the limit.
bool BudgetSearch::IsClose(int64_t values) const {
  return std::any_of(measurements_.begin(), measurements_.end(), [&](const Measurement& measured) {
    return measured.values == values && measured.loss > limit_ / kClose &&
           measured.loss < limit_ * kClose;
  });
}

std::optional<int64_t> BudgetSearch::Next() const {
  const int64_t failing = LargestFailing();
  const int64_t best = Best();
  const int64_t gap = best - failing;
  const int64_t precision = std::max<int64_t>(1, curve_.back().first / kPrecision);
  if (gap <= precision || measurements_.size() >= kMostMeasurements) return std::nullopt;
  // Every measurement has to narrow the gap. Where the prediction points at an end of it, the
  // answer lies beside that end if its loss is close to the limit; else nothing is known.
  const int64_t margin = std::min(std::max(precision / 2, gap / 16), gap / 2);
  const int64_t middle = failing + gap / 2;
  const int64_t values = SizeOfPredicted(kAim * limit_ / Underestimate());
  if (values < failing + margin) return IsClose(failing) ? failing + margin : middle;
  if (values > best - margin) return IsClose(best) ? best - margin : middle;
  return values;
}

}  // namespace latentforge::factorize
