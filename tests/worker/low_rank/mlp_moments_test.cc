#include "worker/low_rank/mlp_moments.h"

#include <gtest/gtest.h>

#include <utility>

#include "tests/worker/low_rank/mlp_reference.h"

namespace latentforge::low_rank {
namespace {

// Sums of at most 100 terms of size up to 10, in another order.
constexpr double kTolerance = 1e-12;

at::Tensor Covariance(const at::Tensor& a, const at::Tensor& b) {
  return at::matmul(a.t(), b) / double(a.size(0));
}

// Of predicting the rows t from x, taken from all tokens at once.
void ExpectMoments(const RegressionMoments& moments, const at::Tensor& x, const at::Tensor& t) {
  EXPECT_EQ(moments.tokens, x.size(0));
  EXPECT_LT(MaxAbs(moments.input_mean - x.mean(0)), kTolerance);
  EXPECT_LT(MaxAbs(moments.input_covariance - Covariance(x, x)), kTolerance);
  EXPECT_LT(MaxAbs(moments.target_mean - t.mean(0)), kTolerance);
  EXPECT_LT(MaxAbs(moments.cross - Covariance(t, x)), kTolerance);
  const double power = t.square().sum(1).mean().item<double>();
  EXPECT_NEAR(moments.target_power, power, kTolerance * power);
}

StreamMoments Streams(const MlpProblem& p) {
  const auto streams = StreamMomentsOf(p.mlp, p.tokens());
  EXPECT_TRUE(streams.ok()) << streams.status();
  return *streams;
}

TEST(MlpMomentsTest, SumsOfChunksAreTheMeansOverAllTokens) {
  const at::Tensor x = RandomMatrix(50, 4, 1) + 1;
  const at::Tensor t = RandomMatrix(50, 6, 2) - 2;
  RegressionSums sums(6, 4, x);
  for (const auto& [start, size] : {std::pair{0L, 20L}, {20L, 1L}, {21L, 29L}}) {
    sums.Add(x.narrow(0, start, size), t.narrow(0, start, size));
  }
  ExpectMoments(std::move(sums).TakeMoments(), x, t);
}

TEST(MlpMomentsTest, StreamsAreThoseOfBothInputs) {
  for (const bool drifted : {false, true}) {
    const MlpProblem p = MakeMlpProblem({.drifted = drifted}, 10);
    const StreamMoments streams = Streams(p);
    EXPECT_EQ(streams.tokens, 100);
    EXPECT_LT(MaxAbs(streams.original_mean - p.original.mean(0)), kTolerance);
    EXPECT_LT(MaxAbs(streams.compressed_mean - p.seen().mean(0)), kTolerance);
    EXPECT_LT(MaxAbs(streams.original_covariance - Covariance(p.original, p.original)), kTolerance);
    EXPECT_LT(MaxAbs(streams.compressed_covariance - Covariance(p.seen(), p.seen())), kTolerance);
    EXPECT_LT(MaxAbs(streams.cross - Covariance(p.original, p.seen())), kTolerance);
  }
}

// The closed form from the streams is that of the map's values, token by token.
TEST(MlpMomentsTest, MapMomentsAreThoseOfItsValues) {
  for (const bool biases : {false, true}) {
    const MlpProblem p = MakeMlpProblem({.biases = biases, .drifted = true}, 20);
    const at::Tensor t = RowsOf(p.mlp.up, p.original);
    const StreamMoments streams = Streams(p);
    ExpectMoments(MapMoments(p.mlp.up, streams), p.compressed, t);

    const at::Tensor spread = RandomMatrix(20, 20, 25);
    const at::Tensor full = at::matmul(spread, spread.t());
    const double power = (at::matmul(t, full) * t).sum(1).mean().item<double>();
    EXPECT_NEAR(MapMoments(p.mlp.up, streams, full).target_power, power, kTolerance * power);
    const at::Tensor diagonal = full.diagonal();
    const double diagonal_power = (t.square() * diagonal).sum(1).mean().item<double>();
    EXPECT_NEAR(MapMoments(p.mlp.up, streams, diagonal).target_power, diagonal_power,
                kTolerance * diagonal_power);
  }
}

TEST(MlpMomentsTest, ActivationsAreThoseOfTheCompressedMapsOnTheirOwnInputs) {
  for (const Activation activation : {Activation::kRelu, Activation::kSwiGlu}) {
    const MlpShape shape{.activation = activation, .drifted = true};
    const MlpProblem p = MakeMlpProblem(shape, 30);
    LowRankMlp low = RandomLowRankMlp(shape, 3, 40);
    const Mlp dense{.activation = activation,
                    .up = Dense(low.up),
                    .gate = activation == Activation::kSwiGlu ? Dense(low.gate) : Linear{}};
    low.down = {};
    const auto moments = ActivationMoments(p.mlp, low, p.tokens());
    ASSERT_TRUE(moments.ok()) << moments.status();
    ExpectMoments(*moments, Activate(activation, InnerRowsOf(dense, p.compressed)),
                  OutputRowsOf(p.mlp, p.original));
  }
}

TEST(MlpMomentsTest, ErrorsOfTheReaderComeThrough) {
  const MlpProblem p = MakeMlpProblem({}, 50);
  const MlpTokens torn{.chunks = 1,
                       .read = [](int64_t) { return absl::DataLossError("the file is torn"); }};
  EXPECT_TRUE(absl::IsDataLoss(StreamMomentsOf(p.mlp, torn).status()));
  EXPECT_TRUE(absl::IsDataLoss(ActivationMoments(p.mlp, {}, torn).status()));
}

}  // namespace
}  // namespace latentforge::low_rank
