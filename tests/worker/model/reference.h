// Slow, plain references in double, for the tests of this folder.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <random>
#include <vector>

namespace latentforge::model {

inline std::vector<double> RandomValues(size_t count, uint32_t seed, double scale = 1.0) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0.0, scale);
  std::vector<double> values(count);
  for (double& value : values) value = normal(generator);
  return values;
}

// Attention of q [T, heads, d] to k, v [T, kv_heads, d]; gives [T, heads * d].
struct AttentionShape {
  int64_t length, heads, kv_heads, dim;
  std::optional<int64_t> window;
};

inline std::vector<double> ReferenceAttention(const std::vector<double>& q,
                                              const std::vector<double>& k,
                                              const std::vector<double>& v,
                                              const AttentionShape& s) {
  std::vector<double> out(q.size(), 0.0);
  const auto at = [&](int64_t t, int64_t h, int64_t heads) {
    return static_cast<size_t>((t * heads + h) * s.dim);
  };
  for (int64_t t = 0; t < s.length; ++t) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t g = h / (s.heads / s.kv_heads);
      const int64_t first = s.window ? std::max<int64_t>(0, t - *s.window + 1) : 0;
      double total = 0;
      for (int64_t j = first; j <= t; ++j) {
        double score = 0;
        for (size_t i = 0; i < static_cast<size_t>(s.dim); ++i) {
          score += q[at(t, h, s.heads) + i] * k[at(j, g, s.kv_heads) + i];
        }
        const double weight = std::exp(score / std::sqrt(static_cast<double>(s.dim)));
        total += weight;
        for (size_t i = 0; i < static_cast<size_t>(s.dim); ++i) {
          out[at(t, h, s.heads) + i] += weight * v[at(j, g, s.kv_heads) + i];
        }
      }
      for (size_t i = 0; i < static_cast<size_t>(s.dim); ++i) out[at(t, h, s.heads) + i] /= total;
    }
  }
  return out;
}

}  // namespace latentforge::model
