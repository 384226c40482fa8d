#include "worker/calibrate/calibration_pass.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>

#include "base/file.h"
#include "checkpoint/tensor_catalogue.h"
#include "tests/checkpoint/fixture.h"
#include "worker/calibrate/layer_pass.h"
#include "worker/model/decoder.h"
#include "worker/model/weights.h"

namespace latentforge::calibrate {
namespace {

namespace fs = std::filesystem;

class CalibrationPassTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = checkpoint::NewTestDirectory("calibration");
    ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(root_ / "model", {.num_layers = 3}).ok());
    auto opened = checkpoint::Checkpoint::Open(root_ / "model");
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_ = std::make_unique<checkpoint::Checkpoint>(*std::move(opened));
    sequences_ = {.count = 5, .length = 8};
    for (int i = 0; i < 40; ++i) sequences_.ids.push_back((i * 7 + i / 8) % 64);
    options_ = {.dtype = at::kFloat,
                .needs = {.cross = true, .covariance = true},
                .scratch = root_ / "scratch",
                .batch_tokens = 16};
    options_.save = [this](int64_t layer, const factorize::LayerStatistics& statistics) {
      saved_[layer] = statistics;
      return absl::OkStatus();
    };
    ASSERT_TRUE(CreateDirectories(options_.scratch).ok());
  }

  // E[x x^T] of every layer from one forward pass that keeps everything in memory.
  std::vector<at::Tensor> ReferenceCovariances() {
    const model::WeightLoader loader(*checkpoint_, at::kCPU, at::kFloat);
    auto decoder = model::Decoder::Create(checkpoint_->config(), at::kCPU, at::kFloat, 8);
    EXPECT_TRUE(decoder.ok()) << decoder.status();
    const at::Tensor hidden = loader.Embed(sequences_.ids, 8).value().view({5, 8, 32});
    std::vector<at::Tensor> covariances;
    for (int64_t layer = 0; layer < 3; ++layer) {
      std::vector<at::Tensor> rows;
      const auto observe = [&](int64_t, model::LayerPoint point, const at::Tensor& x) {
        if (point == model::LayerPoint::kAttentionInput) rows.push_back(x.to(at::kDouble));
        return absl::OkStatus();
      };
      EXPECT_TRUE(decoder->Forward(loader.Layer(layer).value(), hidden, observe).ok());
      const at::Tensor x = at::cat(rows);
      EXPECT_EQ(x.size(0), 40);
      covariances.push_back(at::mm(x.t(), x) / 40);
    }
    return covariances;
  }

  static bool SameBits(const factorize::LayerStatistics& a, const factorize::LayerStatistics& b) {
    return at::equal(a.input.mean_abs, b.input.mean_abs) &&
           at::equal(a.input.covariance, b.input.covariance) && at::equal(a.key.gram, b.key.gram) &&
           at::equal(a.value.cross, b.value.cross);
  }

  fs::path root_;
  std::unique_ptr<checkpoint::Checkpoint> checkpoint_;
  TokenSequences sequences_;
  CalibrationOptions options_;
  std::map<int64_t, factorize::LayerStatistics> saved_;
};

TEST_F(CalibrationPassTest, StatisticsAreThoseOfTheWholeForwardPass) {
  ASSERT_TRUE(RunCalibration(*checkpoint_, sequences_, options_).ok());
  const std::vector<at::Tensor> expected = ReferenceCovariances();
  ASSERT_EQ(saved_.size(), 3u);
  for (int64_t layer = 0; layer < 3; ++layer) {
    const auto& statistics = saved_[layer];
    EXPECT_EQ(statistics.input.tokens, 40);
    // Batches of two sequences against all five: fp32 products in another order.
    const double scale = expected[layer].abs().max().item<double>();
    EXPECT_LT((statistics.input.covariance - expected[layer]).abs().max().item<double>(),
              1e-5 * scale);
    const model::WeightLoader loader(*checkpoint_, at::kCPU, at::kDouble);
    const at::Tensor weight =
        loader.Tensor(checkpoint::LayerTensor(layer, "self_attn.k_proj.weight"), at::kDouble)
            .value();
    const at::Tensor gram = at::mm(at::mm(weight, expected[layer]), weight.t());
    EXPECT_LT((statistics.key.gram - gram).abs().max().item<double>(),
              1e-5 * gram.abs().max().item<double>());
  }
  EXPECT_TRUE(ListDirectory(options_.scratch).value().empty()) << "hidden states were left";
}

TEST_F(CalibrationPassTest, GoesOnAfterTheLastFinishedLayer) {
  ASSERT_TRUE(RunCalibration(*checkpoint_, sequences_, options_).ok());
  const auto whole = saved_;
  for (const bool hidden_survives : {true, false}) {
    saved_.clear();
    int64_t batches = 0;
    options_.first_layer = 0;
    // Three batches a layer: stops in layer 1.
    options_.stop = [&] { return ++batches == 5; };
    EXPECT_TRUE(absl::IsCancelled(RunCalibration(*checkpoint_, sequences_, options_)));
    EXPECT_EQ(saved_.size(), 1u);
    if (!hidden_survives) {
      ASSERT_TRUE(RemoveTree(HiddenPath(options_.scratch, 1)).ok());
    }
    options_.stop = nullptr;
    options_.first_layer = 1;
    ASSERT_TRUE(RunCalibration(*checkpoint_, sequences_, options_).ok());
    ASSERT_EQ(saved_.size(), 3u);
    for (int64_t layer = 0; layer < 3; ++layer) {
      EXPECT_TRUE(SameBits(saved_.at(layer), whole.at(layer))) << "layer " << layer;
    }
  }
}

TEST_F(CalibrationPassTest, AFolderWithTheNameOfItsFileIsReplaced) {
  ASSERT_TRUE(CreateDirectories(HiddenPath(options_.scratch, 1) / "deeper").ok());
  const absl::Status status = RunCalibration(*checkpoint_, sequences_, options_);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(saved_.size(), 3u);
}

TEST_F(CalibrationPassTest, ErrorsNameTheLayer) {
  options_.save = [](int64_t layer, const factorize::LayerStatistics&) {
    return layer == 1 ? absl::ResourceExhaustedError("disk full") : absl::OkStatus();
  };
  const absl::Status status = RunCalibration(*checkpoint_, sequences_, options_);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("calibration of layer 1"), absl::string_view::npos) << status;

  sequences_.ids[3] = 64;
  EXPECT_EQ(RunCalibration(*checkpoint_, sequences_, options_).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(CalibrationPassTest, RefusesArtifacts) {
  checkpoint::TinyOptions converted;
  converted.ranks = {{.k = 4, .v = 4}, {.k = 4, .v = 4}};
  ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(root_ / "converted", converted).ok());
  const auto opened = checkpoint::Checkpoint::Open(root_ / "converted");
  ASSERT_TRUE(opened.ok()) << opened.status();
  const absl::Status status = RunCalibration(*opened, sequences_, options_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("already converted"), absl::string_view::npos);
}

}  // namespace
}  // namespace latentforge::calibrate
