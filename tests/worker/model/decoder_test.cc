#include "worker/model/decoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/checkpoint/fixture.h"

namespace latentforge::model {
namespace {

using checkpoint::Checkpoint;

class DecoderTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::filesystem::path dir = checkpoint::NewTestDirectory("decoder") / "model";
    ASSERT_TRUE(
        checkpoint::WriteTinyCheckpoint(dir, {.family = checkpoint::Family::kQwen2, .scale = 0.5})
            .ok());
    auto source = Checkpoint::Open(dir);
    ASSERT_TRUE(source.ok()) << source.status();
    source_ = std::make_unique<Checkpoint>(*std::move(source));
    auto weights = WeightLoader(*source_, at::kCPU, at::kFloat).Layer(0);
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = *std::move(weights);
  }

  Decoder Make(int64_t length) {
    return *Decoder::Create(source_->config(), at::kCPU, at::kFloat, length);
  }

  at::Tensor Input(int64_t sequences, int64_t length) const {
    const int64_t width = source_->config().hidden_size;
    return at::arange(sequences * length * width, at::kFloat)
        .mul(1.7)
        .sin()
        .view({sequences, length, width});
  }

  std::unique_ptr<Checkpoint> source_;
  LayerWeights weights_;
};

TEST_F(DecoderTest, SequencesAreIndependent) {
  // 5 sequences of 700 rows do not fit one block of rows.
  Decoder decoder = Make(700);
  const at::Tensor together = Input(5, 700).clone();
  ASSERT_TRUE(decoder.Forward(weights_, together).ok());
  for (int64_t i = 0; i < 5; ++i) {
    const at::Tensor alone = Input(5, 700).narrow(0, i, 1).clone();
    ASSERT_TRUE(decoder.Forward(weights_, alone).ok());
    // The same sums, perhaps in other blocks.
    EXPECT_LT((together.narrow(0, i, 1) - alone).abs().max().item<double>(), 1e-4) << i;
  }
}

TEST_F(DecoderTest, LaterTokensDoNotMatter) {
  Decoder decoder = Make(40);
  const at::Tensor whole = Input(1, 40).clone();
  const at::Tensor prefix = Input(1, 40).narrow(1, 0, 25).clone();
  ASSERT_TRUE(decoder.Forward(weights_, whole).ok());
  ASSERT_TRUE(decoder.Forward(weights_, prefix).ok());
  EXPECT_LT((whole.narrow(1, 0, 25) - prefix).abs().max().item<double>(), 1e-4);
}

TEST_F(DecoderTest, ObserverSeesEveryNormedRowOnce) {
  Decoder decoder = Make(700);
  const at::Tensor hidden = Input(5, 700).clone();
  std::vector<at::Tensor> seen;
  const auto observer = [&](int64_t layer, const at::Tensor& x) {
    EXPECT_EQ(layer, 0);
    seen.push_back(x.clone());
    return absl::OkStatus();
  };
  ASSERT_TRUE(decoder.Forward(weights_, hidden, observer).ok());
  const at::Tensor expected = *decoder.FinalNorm(Input(5, 700), weights_.input_norm);
  EXPECT_GT(seen.size(), 1u);
  EXPECT_TRUE(at::cat(seen).allclose(expected.view({3500, -1})));
}

TEST_F(DecoderTest, ObserverStopsThePass) {
  Decoder decoder = Make(8);
  const absl::Status status =
      decoder.Forward(weights_, Input(1, 8).clone(),
                      [](int64_t, const at::Tensor&) { return absl::CancelledError("enough"); });
  EXPECT_EQ(status, absl::CancelledError("enough"));
}

TEST_F(DecoderTest, FullRankFactorsAreTheDenseProjection) {
  Decoder decoder = Make(30);
  const at::Tensor dense = Input(2, 30).clone();
  ASSERT_TRUE(decoder.Forward(weights_, dense).ok());

  const int64_t width = source_->config().kv_width();
  LayerWeights separate = weights_;
  for (Projection* const p : {&separate.k, &separate.v}) {
    const auto [q, r] = at::linalg_qr(p->weight);
    *p = {.down = r, .up = q, .bias = p->bias};
  }
  const at::Tensor by_separate = Input(2, 30).clone();
  ASSERT_TRUE(decoder.Forward(separate, by_separate).ok());
  EXPECT_LT((by_separate - dense).abs().max().item<double>(), 1e-4);

  LayerWeights joint = weights_;
  const at::Tensor both = at::cat({weights_.k.weight, weights_.v.weight});
  const at::Tensor identity = at::eye(2 * width);
  joint.k = {.down = both, .up = identity.narrow(0, 0, width), .bias = weights_.k.bias};
  joint.v = {.down = both, .up = identity.narrow(0, width, width), .bias = weights_.v.bias};
  const at::Tensor by_joint = Input(2, 30).clone();
  ASSERT_TRUE(decoder.Forward(joint, by_joint).ok());
  EXPECT_LT((by_joint - dense).abs().max().item<double>(), 1e-4);
}

TEST_F(DecoderTest, RefusesShapesThatDoNotFit) {
  Decoder decoder = Make(8);
  EXPECT_EQ(decoder.Forward(weights_, Input(1, 9).clone()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(decoder.Forward(weights_, at::ones({1, 8, 31})).code(),
            absl::StatusCode::kInvalidArgument);
  LayerWeights wrong = weights_;
  wrong.k = {.down = at::ones({3, 32}), .up = at::ones({16, 4})};
  EXPECT_EQ(decoder.Forward(wrong, Input(1, 8).clone()).code(), absl::StatusCode::kInvalidArgument);
  wrong.k = {};
  EXPECT_EQ(decoder.Forward(wrong, Input(1, 8).clone()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(Decoder::Create(source_->config(), at::kCPU, at::kFloat, 0).ok());
}

}  // namespace
}  // namespace latentforge::model
