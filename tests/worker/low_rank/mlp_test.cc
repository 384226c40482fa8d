#include "worker/low_rank/mlp.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/worker/low_rank/mlp_reference.h"
#include "worker/low_rank/mlp_error.h"

namespace latentforge::low_rank {
namespace {

double Entry(const at::Tensor& tensor, int64_t i, int64_t j) {
  return tensor.accessor<double, 2>()[i][j];
}

// W x + b of one token, element by element.
std::vector<double> SlowMap(const at::Tensor& weight, const at::Tensor& bias,
                            const std::vector<double>& x) {
  std::vector<double> y;
  for (int64_t i = 0; i < weight.size(0); ++i) {
    double sum = bias.defined() ? bias.const_data_ptr<double>()[i] : 0;
    for (int64_t j = 0; j < weight.size(1); ++j) sum += Entry(weight, i, j) * x[j];
    y.push_back(sum);
  }
  return y;
}

std::vector<double> SlowMlp(Activation activation, const Linear& up, const Linear& gate,
                            const Linear& down, std::vector<double> x) {
  const std::vector<double> ups = SlowMap(up.weight, up.bias, x);
  std::vector<double> gates(ups.size(), 0.0);
  if (activation == Activation::kSwiGlu) gates = SlowMap(gate.weight, gate.bias, x);
  std::vector<double> h;
  for (size_t i = 0; i < ups.size(); ++i) h.push_back(SlowActivation(activation, ups[i], gates[i]));
  return SlowMap(down.weight, down.bias, h);
}

std::vector<double> Row(const at::Tensor& rows, int64_t i) {
  std::vector<double> row;
  for (int64_t j = 0; j < rows.size(1); ++j) row.push_back(Entry(rows, i, j));
  return row;
}

constexpr Activation kActivations[] = {Activation::kRelu, Activation::kSwiGlu};

TEST(MlpTest, OutputsAndErrorAreThoseOfScalarArithmetic) {
  for (const Activation activation : kActivations) {
    for (const bool biases : {false, true}) {
      const MlpShape shape{
          .activation = activation, .d = 5, .f = 9, .n = 40, .biases = biases, .drifted = true};
      const MlpProblem p = MakeMlpProblem(shape, 10);
      const LowRankMlp low = RandomLowRankMlp(shape, 3, 20);
      const at::Tensor dense_rows = OutputRowsOf(p.mlp, p.original);
      const at::Tensor low_rows = OutputRowsOf(low, p.compressed);
      const Linear low_gate = activation == Activation::kSwiGlu ? Dense(low.gate) : Linear{};
      double loss = 0;
      double power = 0;
      for (int64_t i = 0; i < shape.n; ++i) {
        const std::vector<double> y =
            SlowMlp(activation, p.mlp.up, p.mlp.gate, p.mlp.down, Row(p.original, i));
        const std::vector<double> z =
            SlowMlp(activation, Dense(low.up), low_gate, Dense(low.down), Row(p.compressed, i));
        for (int64_t j = 0; j < shape.d; ++j) {
          // Sums of at most nine products of size about 1.
          EXPECT_NEAR(Entry(dense_rows, i, j), y[j], 1e-12);
          EXPECT_NEAR(Entry(low_rows, i, j), z[j], 1e-12);
          loss += (y[j] - z[j]) * (y[j] - z[j]) / double(shape.n);
          power += y[j] * y[j] / double(shape.n);
        }
      }
      const auto error = MeasureMlp(p.mlp, low, p.tokens());
      ASSERT_TRUE(error.ok()) << error.status();
      EXPECT_NEAR(error->loss, loss, 1e-11 * loss);
      EXPECT_NEAR(error->power, power, 1e-11 * power);
      EXPECT_NEAR(error->relative(), std::sqrt(loss / power), 1e-11);
    }
  }
}

// Central differences of step 1e-5 are wrong by 1e-10.
TEST(MlpTest, SiluSlopeIsTheDerivative) {
  const at::Tensor s = at::linspace(-6, 6, 49, at::kDouble);
  const at::Tensor slope = (at::silu(s + 1e-5) - at::silu(s - 1e-5)) / 2e-5;
  EXPECT_LT(MaxAbs(SiluSlope(s) - slope), 1e-9);
}

TEST(MlpTest, ChunksComeInOrderAndInFp64) {
  MlpProblem p = MakeMlpProblem({.d = 4, .n = 80, .drifted = true}, 30);
  p.original = p.original.to(at::kFloat);
  int64_t expected = 0;
  int64_t seen = 0;
  const absl::Status status = VisitChunks(p.tokens(), 4, [&](int64_t chunk, const MlpRows& rows) {
    EXPECT_EQ(chunk, expected++);
    EXPECT_EQ(rows.original.scalar_type(), at::kDouble);
    EXPECT_EQ(
        MaxAbs(rows.original.to(at::kFloat) - p.original.narrow(0, seen, rows.original.size(0))),
        0);
    EXPECT_EQ(MaxAbs(rows.compressed - p.compressed.narrow(0, seen, rows.original.size(0))), 0);
    seen += rows.original.size(0);
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(seen, 80);
  EXPECT_EQ(expected, 3);

  p.compressed = at::Tensor();
  EXPECT_TRUE(VisitChunks(p.tokens(), 4, [&](int64_t, const MlpRows& rows) {
                EXPECT_TRUE(rows.compressed.is_same(rows.original));
                return absl::OkStatus();
              }).ok());
}

TEST(MlpTest, ChunksThatAreWrongAreRefused) {
  const auto visit = [](const MlpTokens& tokens) {
    return VisitChunks(tokens, 4, [](int64_t, const MlpRows&) { return absl::OkStatus(); });
  };
  const auto one = [](MlpRows rows) {
    return MlpTokens{.chunks = 1, .read = [rows](int64_t) { return rows; }};
  };
  EXPECT_TRUE(absl::IsInvalidArgument(visit({})));
  EXPECT_EQ(visit({.chunks = 0, .read = one({}).read}).message(),
            "the MLP has 0 calibration tokens in 0 chunks");
  EXPECT_TRUE(absl::IsInvalidArgument(visit(one({.original = RandomMatrix(0, 4, 1)}))));
  EXPECT_TRUE(absl::IsInvalidArgument(visit(one({}))));
  EXPECT_TRUE(absl::IsInvalidArgument(visit(one({.original = at::ones({2, 4}, at::kLong)}))));
  EXPECT_EQ(visit(one({.original = RandomMatrix(2, 5, 1)})).message(),
            "statistics: the MLP's input rows of chunk 0 has shape [2, 5] and type Double, "
            "expected [2, 4] Double");
  EXPECT_TRUE(absl::IsInvalidArgument(
      visit(one({.original = RandomMatrix(2, 4, 1), .compressed = RandomMatrix(3, 4, 1)}))));
  EXPECT_TRUE(absl::IsInternal(visit(one({.original = RandomMatrix(2, 4, 1) * std::nan("")}))));
  const MlpTokens unreadable{
      .chunks = 1, .read = [](int64_t) { return absl::DataLossError("the file is torn"); }};
  EXPECT_TRUE(absl::IsDataLoss(visit(unreadable)));
  const absl::Status stopped =
      VisitChunks(one({.original = RandomMatrix(2, 4, 1)}), 4,
                  [](int64_t, const MlpRows&) { return absl::CancelledError("stop"); });
  EXPECT_TRUE(absl::IsCancelled(stopped));
}

TEST(MlpTest, MapsThatDoNotFitAreRefused) {
  const Mlp mlp = MakeMlpProblem({.activation = Activation::kSwiGlu}, 40).mlp;
  EXPECT_TRUE(CheckMlp(mlp).ok());
  Mlp broken = mlp;
  broken.down.weight = at::Tensor();
  EXPECT_TRUE(absl::IsInvalidArgument(CheckMlp(broken)));
  broken = mlp;
  broken.up.weight = mlp.up.weight.t();
  EXPECT_EQ(CheckMlp(broken).message(),
            "statistics: the weight of up has shape [8, 20] and type Double, expected [20, 8] "
            "Double");
  broken = mlp;
  broken.gate = {};
  EXPECT_TRUE(absl::IsInvalidArgument(CheckMlp(broken)));
  broken.activation = Activation::kRelu;
  EXPECT_TRUE(CheckMlp(broken).ok());
  broken = mlp;
  broken.up.bias = RandomVector(8, 1);
  EXPECT_TRUE(absl::IsInvalidArgument(CheckMlp(broken)));
  broken = mlp;
  broken.gate.bias = mlp.gate.bias * INFINITY;
  EXPECT_TRUE(absl::IsInternal(CheckMlp(broken)));

  EXPECT_TRUE(CheckRanks(mlp, {.up = 8, .gate = 1, .down = 8}).ok());
  EXPECT_EQ(CheckRanks(mlp, {.up = 9, .gate = 1, .down = 8}).message(),
            "rank of up is 9, expected 1 to 8");
  EXPECT_TRUE(absl::IsInvalidArgument(CheckRanks(mlp, {.up = 8, .gate = 0, .down = 8})));
  EXPECT_TRUE(absl::IsInvalidArgument(CheckRanks(mlp, {.up = 8, .gate = 1, .down = -1})));
}

}  // namespace
}  // namespace latentforge::low_rank
