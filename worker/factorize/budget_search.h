// Finds the smallest cache whose measured loss stays within a limit.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace latentforge::factorize {

// The predicted loss of caches says where to measure; every measurement says by how much it is
// off, so a few are enough. Sizes are cached values of one token; losses are nats a token. Pure;
// not safe for concurrent use.
class BudgetSearch {
 public:
  struct Measurement {
    int64_t values = 0;
    double loss = 0;  // not finite: beyond every limit
  };

  // `curve`: (size, predicted loss) with rising sizes and falling losses, at least one point; the
  // last is the whole cache, which is within every limit. `limit` is positive.
  BudgetSearch(std::vector<std::pair<int64_t, double>> curve, double limit);

  // What was measured of a size that Next gave, or that an earlier search measured.
  void Add(const Measurement& measurement);

  // The size to measure next; nullopt when the answer is known to 1 % of the whole cache, or
  // after eight measurements.
  std::optional<int64_t> Next() const;

  // The smallest size that was measured to be within the limit, else the whole cache.
  int64_t Best() const;

  const std::vector<Measurement>& measurements() const { return measurements_; }

 private:
  int64_t LargestFailing() const;
  double Underestimate() const;
  bool IsClose(int64_t values) const;
  int64_t SizeOfPredicted(double loss) const;
  double Predicted(int64_t values) const;

  std::vector<std::pair<int64_t, double>> curve_;
  double limit_;
  std::vector<Measurement> measurements_;
};

}  // namespace latentforge::factorize
