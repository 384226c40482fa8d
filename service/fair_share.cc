#include "service/fair_share.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace latentforge::service {
namespace {

constexpr double kLeastCost = 1;
constexpr double kMostCost = 366.0 * 24 * 3600;

}  // namespace

std::optional<size_t> NextTurn(const std::vector<Contender>& contenders, double clock) {
  const auto turn = [clock](const Contender& contender) {
    return std::make_tuple(std::max(contender.virtual_time, clock), contender.rank_time,
                           contender.ordinal);
  };
  const auto first =
      std::min_element(contenders.begin(), contenders.end(),
                       [&](const Contender& a, const Contender& b) { return turn(a) < turn(b); });
  if (first == contenders.end()) return std::nullopt;
  return static_cast<size_t>(first - contenders.begin());
}

Charge ChargeFor(double cost, double weight, double virtual_time, double clock) {
  const double start = std::max(virtual_time, clock);
  return {start, start + cost / weight};
}

double CostOf(const v1::Estimate& estimate) {
  if (std::isnan(estimate.seconds())) return kLeastCost;
  return std::clamp(estimate.seconds(), kLeastCost, kMostCost);
}

}  // namespace latentforge::service
