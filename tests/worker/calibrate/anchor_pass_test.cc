#include "worker/calibrate/anchor_pass.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/checkpoint/fixture.h"
#include "worker/calibrate/anchor_sums.h"
#include "worker/model/decoder.h"
#include "worker/model/weights.h"

namespace latentforge::calibrate {
namespace {

namespace fs = std::filesystem;
using factorize::AnchorMoments;

constexpr int64_t kLayers = 3;
constexpr int64_t kLength = 8;
constexpr int64_t kCount = 5;
constexpr int64_t kWidth = 32;

class AnchorPassTest : public testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);  // products are tiny, and passes many
    root_ = checkpoint::NewTestDirectory("anchor");
    ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(
                    root_ / "model",
                    {.family = checkpoint::Family::kQwen3, .num_layers = kLayers, .scale = 0.5})
                    .ok());
    auto opened = checkpoint::Checkpoint::Open(root_ / "model");
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_ = std::make_unique<checkpoint::Checkpoint>(*std::move(opened));
    sequences_ = {.count = kCount, .length = kLength};
    for (int i = 0; i < kCount * kLength; ++i) sequences_.ids.push_back((i * 7 + i / 8) % 64);
    options_ = {.dtype = at::kFloat,
                .scratch = root_ / "scratch",
                .finished = std::vector<bool>(kLayers),
                .batch_tokens = 16};
    options_.factorize = [this](int64_t layer, const AnchorMoments& moments) {
      calls_ += absl::StrCat(" f", layer);
      // Clones: sums would be shared.
      saved_[layer] = {.tokens = moments.tokens,
                       .sequences = moments.sequences,
                       .converted = moments.converted.clone(),
                       .converted_first = moments.converted_first.clone(),
                       .cross = moments.cross.clone(),
                       .cross_first = moments.cross_first.clone()};
      return absl::OkStatus();
    };
    options_.convert = [this](int64_t layer, model::LayerWeights& weights) {
      calls_ += absl::StrCat(" c", layer);
      EXPECT_TRUE(saved_.contains(layer) || options_.finished[size_t(layer)]);
      Spoil(layer, weights);
      return absl::OkStatus();
    };
    ASSERT_TRUE(CreateDirectories(options_.scratch).ok());
  }

  // Stands for factors: keys and values of the first rows alone.
  static void Spoil(int64_t layer, model::LayerWeights& weights) {
    const at::Tensor rows = weights.k.weight.narrow(0, 0, 3 + layer).contiguous();
    weights.k.Replace(rows, at::eye(weights.k.weight.size(0), rows.size(0), at::kFloat));
    weights.v.weight = 0.5 * weights.v.weight;
  }

  // The inputs of every layer's projections, [rows, D] fp64, in one pass that keeps all in memory.
  std::vector<at::Tensor> Inputs(bool converted) const {
    const model::WeightLoader loader(*checkpoint_, at::kCPU, at::kFloat);
    auto decoder = model::Decoder::Create(checkpoint_->config(), at::kCPU, at::kFloat, kLength);
    const at::Tensor hidden =
        loader.Embed(sequences_.ids, kLength).value().view({kCount, kLength, kWidth}).clone();
    std::vector<at::Tensor> inputs;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      std::vector<at::Tensor> rows;
      const auto observe = [&](int64_t, model::LayerPoint point, const at::Tensor& x) {
        if (point == model::LayerPoint::kAttentionInput) rows.push_back(x.to(at::kDouble));
        return absl::OkStatus();
      };
      model::LayerWeights weights = loader.Layer(layer).value();
      if (converted) Spoil(layer, weights);
      EXPECT_TRUE(decoder->Forward(weights, hidden, observe).ok());
      inputs.push_back(at::cat(rows));
    }
    return inputs;
  }

  // As a job tells the pass of what earlier attempts saved.
  void MarkSaved() {
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      options_.finished[size_t(layer)] = saved_.contains(layer);
    }
  }

  absl::Status Run() { return RunAnchorPass(*checkpoint_, sequences_, options_); }

  static bool SameBits(const AnchorMoments& a, const AnchorMoments& b) {
    return a.tokens == b.tokens && at::equal(a.converted, b.converted) &&
           at::equal(a.converted_first, b.converted_first) && at::equal(a.cross, b.cross) &&
           at::equal(a.cross_first, b.cross_first);
  }

  fs::path root_;
  std::unique_ptr<checkpoint::Checkpoint> checkpoint_;
  TokenSequences sequences_;
  AnchorPassOptions options_;
  std::map<int64_t, AnchorMoments> saved_;
  std::string calls_;
};

TEST_F(AnchorPassTest, MomentsAreThoseOfBothModelsForwardPasses) {
  double share = 0;
  options_.progress = [&](double now, double worked, absl::string_view) {
    EXPECT_GT(now, share);
    EXPECT_DOUBLE_EQ(now, worked);
    share = now;
  };
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(calls_, " f0 c0 f1 c1 f2") << "the last layer's output is of no use";
  EXPECT_DOUBLE_EQ(share, 1);
  const std::vector<at::Tensor> original = Inputs(false);
  const std::vector<at::Tensor> converted = Inputs(true);
  const auto first = [](const at::Tensor& x) { return x.slice(0, 0, x.size(0), kLength); };
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const at::Tensor& o = original[size_t(layer)];
    const at::Tensor& c = converted[size_t(layer)];
    const AnchorMoments& found = saved_[layer];
    EXPECT_EQ(found.tokens, kCount * kLength);
    EXPECT_EQ(found.sequences, kCount);
    const auto expect = [&](const at::Tensor& moment, const at::Tensor& expected) {
      // The same states; fp32 sums of 16 products each, a few roundings of 6e-8.
      EXPECT_LT(((moment - expected).abs().max() / expected.abs().max()).item<double>(), 1e-5)
          << "layer " << layer;
    };
    expect(found.converted, c.t().mm(c) / double(kCount * kLength));
    expect(found.cross, o.t().mm(c) / double(kCount * kLength));
    expect(found.converted_first, first(c).t().mm(first(c)) / double(kCount));
    expect(found.cross_first, first(o).t().mm(first(c)) / double(kCount));
    // Only the first layer has the same inputs in both.
    EXPECT_EQ((o - c).abs().max().item<double>() > 0.01, layer > 0);
  }
  EXPECT_TRUE(ListDirectory(options_.scratch).value().empty()) << "streams were left";
}

TEST_F(AnchorPassTest, StopsAnywhereAndGoesOnWithTheSameMoments) {
  ASSERT_TRUE(Run().ok());
  const auto whole = saved_;
  // Three batches for the moments and for each stream of a layer.
  for (int stop_at = 1; stop_at <= 21; ++stop_at) {
    for (const bool streams_survive : {true, false}) {
      if (!streams_survive && stop_at % 4 != 0) continue;
      saved_.clear();
      MarkSaved();
      int batches = 0;
      options_.stop = [&] { return ++batches == stop_at; };
      ASSERT_TRUE(absl::IsCancelled(Run())) << stop_at;
      const size_t saved = saved_.size();
      if (!streams_survive) {
        ASSERT_TRUE(RemoveTree(options_.scratch).ok());
        ASSERT_TRUE(CreateDirectories(options_.scratch).ok());
      }
      MarkSaved();
      batches = 0;
      calls_.clear();
      options_.stop = [&] {
        ++batches;
        return false;
      };
      ASSERT_TRUE(Run().ok());
      ASSERT_EQ(saved_.size(), size_t(kLayers));
      for (const auto& [layer, moments] : whole) {
        EXPECT_TRUE(SameBits(saved_.at(layer), moments)) << "layer " << layer << " at " << stop_at;
      }
      // At most the layer that was stopped is begun again; without its streams everything is
      // but the moments of finished layers.
      const int all = 21 - 3 * int(saved);
      if (streams_survive) {
        EXPECT_LE(batches, 21 - stop_at + 9);
      } else {
        EXPECT_EQ(batches, all);
      }
      EXPECT_TRUE(ListDirectory(options_.scratch).value().empty());
    }
  }
}

TEST_F(AnchorPassTest, FinishedLayersAreConvertedAndNotMadeAgain) {
  ASSERT_TRUE(Run().ok());
  const auto whole = saved_;
  // One in the middle is missing: those behind it stay, and need no streams.
  saved_.erase(1);
  MarkSaved();
  calls_.clear();
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(calls_, " c0 f1");
  EXPECT_TRUE(SameBits(saved_.at(1), whole.at(1)));
  // All are there, and streams of an attempt that died at the end.
  MarkSaved();
  calls_.clear();
  ASSERT_TRUE(WriteFileAtomic(options_.scratch / "original.2.bin", "left").ok());
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(calls_, "");
  EXPECT_TRUE(ListDirectory(options_.scratch).value().empty());
}

TEST_F(AnchorPassTest, ErrorsNameTheLayer) {
  const auto factorize = options_.factorize;
  options_.factorize = [&](int64_t layer, const AnchorMoments& moments) {
    return layer == 1 ? absl::ResourceExhaustedError("disk full") : factorize(layer, moments);
  };
  const absl::Status status = Run();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("anchored pass, layer 1"), absl::string_view::npos) << status;
  options_.finished.pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(Run()));
}

TEST(AnchorSumsTest, NeedsTokens) {
  AnchorSums sums(4, at::kCPU);
  EXPECT_TRUE(absl::IsFailedPrecondition(std::move(sums).Finish().status()));
}

// More rows than one product takes, in bf16.
TEST(AnchorSumsTest, SumsBlocks) {
  const at::Tensor o = at::arange(2050 * 2, at::kDouble).remainder(13).view({2050, 2});
  const at::Tensor c = at::arange(2050 * 2, at::kDouble).remainder(7).view({2050, 2});
  AnchorSums sums(2, at::kCPU);
  sums.Add(o.to(at::kBFloat16), c.to(at::kBFloat16), 1025);
  const auto moments = std::move(sums).Finish();
  ASSERT_TRUE(moments.ok()) << moments.status();
  // Small integers: every product and sum is exact.
  EXPECT_TRUE(at::equal(moments->cross, o.t().mm(c) / 2050.0));
  EXPECT_TRUE(at::equal(moments->converted, c.t().mm(c) / 2050.0));
  const at::Tensor first = at::stack({c[0], c[1025]});
  EXPECT_TRUE(at::equal(moments->converted_first, first.t().mm(first) / 2.0));
}

}  // namespace
}  // namespace latentforge::calibrate
