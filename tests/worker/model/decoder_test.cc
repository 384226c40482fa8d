#include "worker/model/decoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
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

TEST_F(DecoderTest, ObserverSeesEveryRowOfEveryPointOnceAndInOrder) {
  // 5 sequences of 700 rows are several blocks of attention and of the MLP.
  Decoder decoder = Make(700);
  const at::Tensor hidden = Input(5, 700).clone();
  std::map<LayerPoint, std::vector<at::Tensor>> seen;
  const auto observer = [&](int64_t layer, LayerPoint point, const at::Tensor& rows) {
    EXPECT_EQ(layer, 0);
    seen[point].push_back(rows.clone());
    return absl::OkStatus();
  };
  ASSERT_TRUE(decoder.Forward(weights_, hidden, observer).ok());
  const auto rows = [&](LayerPoint point) {
    EXPECT_GT(seen[point].size(), 1u);
    return at::cat(seen[point]);
  };
  // Each point from the one before it by the plain formulas; fp32 on both sides.
  const auto expect_close = [](const at::Tensor& found, const at::Tensor& expected) {
    ASSERT_EQ(found.sizes(), expected.sizes());
    EXPECT_LT((found - expected).abs().max().item<double>(),
              1e-5 * expected.abs().max().item<double>());
  };
  const at::Tensor input = Input(5, 700).view({3500, -1});
  expect_close(rows(LayerPoint::kAttentionInput), *decoder.FinalNorm(input, weights_.input_norm));
  const at::Tensor middle = input + Project(rows(LayerPoint::kAttended), weights_.o);
  expect_close(rows(LayerPoint::kMlpInput),
               *decoder.FinalNorm(middle, weights_.post_attention_norm));
  const at::Tensor gate_up = Project(rows(LayerPoint::kMlpInput), weights_.gate_up);
  expect_close(rows(LayerPoint::kActivated),
               at::silu(gate_up.chunk(2, 1)[0]) * gate_up.chunk(2, 1)[1]);
  expect_close(rows(LayerPoint::kMlpOutput),
               Project(rows(LayerPoint::kActivated), weights_.mlp_down));
  expect_close(hidden.view({3500, -1}), middle + rows(LayerPoint::kMlpOutput));

  const at::Tensor unobserved = Input(5, 700).clone();
  ASSERT_TRUE(decoder.Forward(weights_, unobserved).ok());
  expect_close(hidden, unobserved);
}

TEST_F(DecoderTest, ObserverStopsThePassAtEveryPoint) {
  Decoder decoder = Make(8);
  for (const LayerPoint last :
       {LayerPoint::kAttentionInput, LayerPoint::kAttended, LayerPoint::kMlpInput,
        LayerPoint::kActivated, LayerPoint::kMlpOutput}) {
    bool stopped = false;
    const absl::Status status = decoder.Forward(
        weights_, Input(1, 8).clone(), [&](int64_t, LayerPoint point, const at::Tensor&) {
          EXPECT_FALSE(stopped);
          stopped = point == last;
          return stopped ? absl::CancelledError("enough") : absl::OkStatus();
        });
    EXPECT_EQ(status, absl::CancelledError("enough"));
  }
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

// Every map dense or of low rank by the bits of `mixture`, in bf16 too, where the products write
// into parts of a row.
TEST_F(DecoderTest, AnyMixtureOfLowRankMapsIsTheProductOfTheirFactors) {
  SplitGateUp(weights_);
  const auto maps = [](LayerWeights& w) {
    return std::vector<Projection*>{&w.q, &w.k, &w.v, &w.o, &w.gate, &w.up, &w.mlp_down};
  };
  Decoder decoder = Make(30);
  for (const unsigned mixture : {0b1111111u, 0b0101010u, 0b1010101u, 0b0100000u, 0b0000001u}) {
    LayerWeights low_rank = weights_, product = weights_;
    for (size_t i = 0; i < 7; ++i) {
      if ((mixture >> i & 1) == 0) continue;
      Projection* const p = maps(low_rank)[i];
      const auto [q, r] = at::linalg_qr(p->weight);
      p->Replace(r.narrow(0, 0, 9).contiguous(), q.narrow(1, 0, 9).contiguous());
      maps(product)[i]->weight = p->up.mm(p->down);
    }
    const at::Tensor found = Input(2, 30).clone(), expected = Input(2, 30).clone();
    ASSERT_TRUE(decoder.Forward(low_rank, found).ok());
    ASSERT_TRUE(decoder.Forward(product, expected).ok());
    // The same sums in another order: some tens of roundings of 6e-8 of states of about 10.
    EXPECT_LT((found - expected).abs().max().item<double>(), 1e-4) << mixture;

    Decoder rough = *Decoder::Create(source_->config(), at::kCPU, at::kBFloat16, 30);
    for (Projection* const p : maps(low_rank)) {
      for (at::Tensor* const t : {&p->weight, &p->down, &p->up, &p->bias}) {
        if (t->defined()) *t = t->to(at::kBFloat16);
      }
    }
    for (Norm* const norm : {&low_rank.input_norm, &low_rank.post_attention_norm}) {
      norm->weight = norm->weight.to(at::kBFloat16);
    }
    const at::Tensor rounded = Input(2, 30).to(at::kBFloat16);
    ASSERT_TRUE(rough.Forward(low_rank, rounded).ok());
    // Eight bits, and about ten roundings in a row.
    EXPECT_LT(((rounded.to(at::kFloat) - expected).norm() / expected.norm()).item<double>(), 0.03)
        << mixture;
  }
}

TEST_F(DecoderTest, SplittingGateAndUpChangesNothing) {
  Decoder decoder = Make(30);
  const at::Tensor together = Input(2, 30).clone(), apart = Input(2, 30).clone();
  ASSERT_TRUE(decoder.Forward(weights_, together).ok());
  SplitGateUp(weights_);
  EXPECT_FALSE(weights_.gate_up.defined());
  ASSERT_TRUE(decoder.Forward(weights_, apart).ok());
  EXPECT_LT((together - apart).abs().max().item<double>(), 1e-5);
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
  for (Projection LayerWeights::*const member :
       {&LayerWeights::q, &LayerWeights::o, &LayerWeights::gate_up, &LayerWeights::mlp_down}) {
    for (const Projection& bad :
         {Projection{}, Projection{.weight = at::ones({31, 32})},
          Projection{.down = at::ones({3, 32}), .up = at::ones({32, 4})},
          Projection{.weight = (weights_.*member).weight, .bias = at::ones({5})}}) {
      wrong = weights_;
      wrong.*member = bad;
      const absl::Status status = decoder.Forward(wrong, Input(1, 8).clone());
      EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    }
  }
  EXPECT_FALSE(Decoder::Create(source_->config(), at::kCPU, at::kFloat, 0).ok());
}

}  // namespace
}  // namespace latentforge::model
