#include "service/fair_share.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <random>

#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

Contender At(double virtual_time, int64_t rank = 0, int64_t ordinal = 0) {
  return {virtual_time, absl::FromUnixSeconds(rank), ordinal};
}

TEST(FairShareTest, TheEarliestStartIsNext) {
  EXPECT_EQ(NextTurn({}, 0), std::nullopt);
  EXPECT_EQ(NextTurn({At(3), At(1), At(2)}, 0), 1u);
  // Up to the clock all are equal: the rank decides, then the age.
  EXPECT_EQ(NextTurn({At(3, 5), At(1, 7), At(2, 4)}, 10), 2u);
  EXPECT_EQ(NextTurn({At(3, 5, 9), At(1, 5, 8)}, 10), 1u);
}

TEST(FairShareTest, ACostIsDividedByTheWeight) {
  const Charge charge = ChargeFor(60, 3, 100, 40);
  EXPECT_EQ(charge.clock, 100);
  EXPECT_EQ(charge.virtual_time, 120);
  // Who was away saved up nothing.
  EXPECT_EQ(ChargeFor(60, 1, 100, 5000).virtual_time, 5060);
}

TEST(FairShareTest, CostsAreEstimatedSecondsWithinBounds) {
  v1::Estimate estimate;
  EXPECT_EQ(CostOf(estimate), 1);
  estimate.set_seconds(90);
  EXPECT_EQ(CostOf(estimate), 90);
  estimate.set_seconds(std::numeric_limits<double>::infinity());
  EXPECT_LT(CostOf(estimate), 4e7);
  estimate.set_seconds(std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(CostOf(estimate), 1);
}

// A tenant of the simulation.
struct Tenant {
  double weight = 1;
  double virtual_time = 0;
  double most_cost = 0;
  std::deque<double> queue;      // costs
  std::vector<double> served;    // cost / weight up to each claim
  std::vector<bool> backlogged;  // before each claim
};

class Simulation {
 public:
  Simulation(uint32_t seed, int tenants) : random_(seed) {
    for (int i = 0; i < tenants; ++i) tenants_.push_back({.weight = Draw(0.25, 8)});
  }

  void Run(int claims) {
    for (int i = 0; i < claims; ++i) {
      Arrive();
      Claim();
    }
  }

  // Fluid sharing gives two tenants that both wait all through an interval the same service
  // for their weight; jobs are indivisible, so each may be off by its largest one (theorem 1 of
  // the paper). Returns by how much that is passed, at most.
  double WorstExcess() const {
    double worst = -std::numeric_limits<double>::infinity();
    for (const Tenant& a : tenants_)
      for (const Tenant& b : tenants_)
        if (&a != &b) worst = std::max(worst, Excess(a, b));
    return worst;
  }

 private:
  double Draw(double from, double to) {
    return std::uniform_real_distribution<double>(from, to)(random_);
  }

  void Arrive() {
    for (Tenant& tenant : tenants_) {
      // Bursts, so that tenants come and go.
      if (Draw(0, 1) > 0.06) continue;
      const int jobs = static_cast<int>(Draw(1, 30));
      for (int i = 0; i < jobs; ++i) {
        tenant.queue.push_back(Draw(0, 1) < 0.1 ? Draw(100, 1000) : Draw(1, 20));
        tenant.most_cost = std::max(tenant.most_cost, tenant.queue.back());
      }
    }
  }

  void Claim() {
    std::vector<Contender> contenders;
    std::vector<Tenant*> who;
    for (Tenant& tenant : tenants_) {
      tenant.backlogged.push_back(!tenant.queue.empty());
      if (tenant.queue.empty()) continue;
      contenders.push_back({tenant.virtual_time, absl::UnixEpoch(), 0});
      who.push_back(&tenant);
    }
    double gained = 0;
    Tenant* chosen = nullptr;
    if (const auto turn = NextTurn(contenders, clock_); turn.has_value()) {
      chosen = who[*turn];
      gained = chosen->queue.front() / chosen->weight;
      const Charge charge =
          ChargeFor(chosen->queue.front(), chosen->weight, chosen->virtual_time, clock_);
      EXPECT_GE(charge.clock, clock_);
      chosen->virtual_time = charge.virtual_time;
      chosen->queue.pop_front();
      clock_ = charge.clock;
    }
    for (Tenant& tenant : tenants_) {
      const double before = tenant.served.empty() ? 0 : tenant.served.back();
      tenant.served.push_back(before + (&tenant == chosen ? gained : 0));
    }
  }

  static double Excess(const Tenant& a, const Tenant& b) {
    const double bound = a.most_cost / a.weight + b.most_cost / b.weight;
    double worst = -bound;
    double least = 0;  // of a's lead over b at the beginnings of the interval
    double most = 0;
    bool both = false;
    for (size_t i = 0; i < a.served.size(); ++i) {
      const double lead = a.served[i] - b.served[i];
      if (!a.backlogged[i] || !b.backlogged[i]) {
        both = false;
        continue;
      }
      const double before = i == 0 ? 0 : a.served[i - 1] - b.served[i - 1];
      least = both ? std::min(least, before) : before;
      most = both ? std::max(most, before) : before;
      both = true;
      worst = std::max({worst, lead - least - bound, most - lead - bound});
    }
    return worst;
  }

  std::mt19937 random_;
  double clock_ = 0;
  std::vector<Tenant> tenants_;
};

TEST(FairShareTest, TenantsThatBothWaitGetServiceByTheirWeights) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    Simulation simulation(seed, 2 + static_cast<int>(seed % 5));
    simulation.Run(3000);
    // Sums of up to 3000 terms of about 1e3: rounding stays far below 1e-6.
    EXPECT_LE(simulation.WorstExcess(), 1e-6) << "seed " << seed;
  }
}

}  // namespace
}  // namespace latentforge::service
