#include "worker/calibrate/fisher_pass.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <map>
#include <memory>
#include <vector>

#include "base/file.h"
#include "checkpoint/tensor_catalogue.h"
#include "tests/checkpoint/fixture.h"
#include "worker/model/layer_graph.h"
#include "worker/model/weights.h"

namespace latentforge::calibrate {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLayers = 3;
constexpr int64_t kLength = 8;
constexpr int64_t kCount = 5;

class FisherPassTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = checkpoint::NewTestDirectory("fisher");
    ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(
                    root_ / "model",
                    {.family = checkpoint::Family::kQwen3, .num_layers = kLayers, .scale = 0.5})
                    .ok());
    auto opened = checkpoint::Checkpoint::Open(root_ / "model");
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_ = std::make_unique<checkpoint::Checkpoint>(*std::move(opened));
    sequences_ = {.count = kCount, .length = kLength};
    for (int i = 0; i < kCount * kLength; ++i) sequences_.ids.push_back((i * 7 + i / 8) % 64);
    options_.pass = {.dtype = at::kFloat, .scratch = root_ / "scratch", .batch_tokens = 16};
    options_.save = [this](int64_t layer, const factorize::LossStatistics& statistics) {
      saved_[layer] = statistics;
      return absl::OkStatus();
    };
    ASSERT_TRUE(CreateDirectories(options_.pass.scratch).ok());
  }

  // dL/d[K, V] of every layer, [rows, 2m], by one graph through the whole model.
  std::vector<at::Tensor> WholeModelGradients() const {
    const model::WeightLoader loader(*checkpoint_, at::kCPU, at::kFloat);
    const auto graph =
        model::LayerGraph::Create(checkpoint_->config(), at::kCPU, at::kFloat, kLength).value();
    const model::Norm norm = loader.FinalNorm().value();
    const at::Tensor head = loader.LmHeadRows(0, checkpoint_->config().vocab_size).value();
    at::Tensor hidden = loader.Embed(sequences_.ids, kLength).value().view({kCount, kLength, -1});
    const at::AutoGradMode with_gradients(true);
    hidden.requires_grad_();
    std::vector<at::Tensor> outputs;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const auto result = graph.Forward(loader.Layer(layer).value(), hidden);
      outputs.push_back(result.key);
      outputs.push_back(result.value);
      hidden = result.output;
    }
    const at::Tensor logits = graph.ApplyNorm(hidden, norm).matmul(head.t());
    const at::Tensor ids =
        at::tensor(std::vector<int64_t>(sequences_.ids.begin(), sequences_.ids.end()))
            .view({kCount, kLength});
    const at::Tensor loss = -logits.log_softmax(-1)
                                 .narrow(1, 0, kLength - 1)
                                 .gather(2, ids.narrow(1, 1, kLength - 1).unsqueeze(2))
                                 .sum();
    const auto gradients = torch::autograd::grad({loss}, outputs);
    std::vector<at::Tensor> joined;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      joined.push_back(
          at::cat({gradients[2 * layer], gradients[2 * layer + 1]}, 1).to(at::kDouble));
    }
    return joined;
  }

  static bool SameBits(const factorize::LossStatistics& a, const factorize::LossStatistics& b) {
    return a.tokens == b.tokens && at::equal(a.output, b.output) && at::equal(a.fisher, b.fisher) &&
           at::equal(a.output_first, b.output_first) && at::equal(a.fisher_first, b.fisher_first);
  }

  static double Difference(const at::Tensor& a, const at::Tensor& b) {
    return ((a - b).abs().max() / b.abs().max()).item<double>();
  }

  fs::path root_;
  std::unique_ptr<checkpoint::Checkpoint> checkpoint_;
  TokenSequences sequences_;
  FisherOptions options_;
  std::map<int64_t, factorize::LossStatistics> saved_;
};

TEST_F(FisherPassTest, TextLabelsGiveTheGradientsOfTheWholeModel) {
  options_.pass.labels = FisherLabels::kText;
  const absl::Status status = RunFisherPass(*checkpoint_, sequences_, options_);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(saved_.size(), size_t(kLayers));
  const std::vector<at::Tensor> expected = WholeModelGradients();
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const factorize::LossStatistics& found = saved_[layer];
    const at::Tensor& g = expected[layer];
    EXPECT_EQ(found.tokens, kCount * kLength);
    EXPECT_EQ(found.sequences, kCount);
    // fp32 through three layers in another order: a few hundred roundings of 6e-8.
    EXPECT_LT(Difference(found.fisher, g.t().mm(g) / double(kCount * kLength)), 1e-4);
    const at::Tensor first = g.slice(0, 0, kCount * kLength, kLength);
    EXPECT_LT(Difference(found.fisher_first, first.t().mm(first) / double(kCount)), 1e-4);
  }
  EXPECT_TRUE(ListDirectory(options_.pass.scratch).value().empty()) << "files were left";
}

TEST_F(FisherPassTest, OutputsOfTheFirstLayerAreThoseOfTheEmbedding) {
  ASSERT_TRUE(RunFisherPass(*checkpoint_, sequences_, options_).ok());
  const model::WeightLoader loader(*checkpoint_, at::kCPU, at::kDouble);
  const auto graph =
      model::LayerGraph::Create(checkpoint_->config(), at::kCPU, at::kDouble, kLength).value();
  const at::Tensor x = graph.ApplyNorm(loader.Embed(sequences_.ids, kLength).value(),
                                       loader.Layer(0).value().input_norm);
  const auto weight = [&](const char* name) {
    return loader.Tensor(checkpoint::LayerTensor(0, name), at::kDouble).value();
  };
  const at::Tensor y =
      x.mm(at::cat({weight("self_attn.k_proj.weight"), weight("self_attn.v_proj.weight")}).t());
  EXPECT_LT(Difference(saved_[0].output, y.t().mm(y) / double(kCount * kLength)), 1e-5);
  const at::Tensor first = y.slice(0, 0, kCount * kLength, kLength);
  EXPECT_LT(Difference(saved_[0].output_first, first.t().mm(first) / double(kCount)), 1e-5);
}

TEST_F(FisherPassTest, SampledLabelsDependOnTheSeedAlone) {
  ASSERT_TRUE(RunFisherPass(*checkpoint_, sequences_, options_).ok());
  const auto whole = saved_;
  ASSERT_TRUE(RunFisherPass(*checkpoint_, sequences_, options_).ok());
  EXPECT_TRUE(SameBits(saved_[0], whole.at(0)));
  options_.pass.seed = 8;
  ASSERT_TRUE(RunFisherPass(*checkpoint_, sequences_, options_).ok());
  EXPECT_FALSE(at::equal(saved_[0].fisher, whole.at(0).fisher));
  EXPECT_TRUE(at::equal(saved_[0].output, whole.at(0).output));
}

TEST_F(FisherPassTest, GoesOnWhereItWasStopped) {
  ASSERT_TRUE(RunFisherPass(*checkpoint_, sequences_, options_).ok());
  const auto whole = saved_;
  saved_.clear();
  // Three batches a step, one step for each layer forward, the head, each layer back.
  // Stopped every four batches, the pass still ends, and with the same bytes.
  int64_t runs = 0;
  absl::Status status = absl::CancelledError("");
  double furthest = 0;
  while (absl::IsCancelled(status) && runs < 50) {
    ++runs;
    int64_t batches = 0;
    options_.pass.stop = [&] { return ++batches > 40; };
    options_.pass.finished_from = saved_.empty() ? -1 : saved_.begin()->first;
    options_.pass.progress = [&](double share, double worked, absl::string_view) {
      EXPECT_LE(worked, share + 1e-9);
      furthest = std::max(furthest, share);
    };
    status = RunFisherPass(*checkpoint_, sequences_, options_);
    if (runs > 1 && !status.ok()) {
      EXPECT_TRUE(absl::IsCancelled(status)) << status;
    }
    if (absl::IsCancelled(status) && runs > 3) options_.pass.stop = nullptr;
  }
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_NEAR(furthest, 1, 1e-9);
  ASSERT_EQ(saved_.size(), whole.size());
  for (const auto& [layer, statistics] : whole) {
    EXPECT_TRUE(SameBits(saved_[layer], statistics)) << layer;
  }
}

TEST_F(FisherPassTest, LostStatisticsAreMadeAgain) {
  ASSERT_TRUE(RunFisherPass(*checkpoint_, sequences_, options_).ok());
  const auto whole = saved_;
  // Stopped in layer 0, behind the gradient of layer 1; then layer 1's statistics are lost.
  options_.pass.stop = [&] { return saved_.contains(1) && saved_.size() == 2; };
  saved_.clear();
  EXPECT_TRUE(absl::IsCancelled(RunFisherPass(*checkpoint_, sequences_, options_)));
  saved_.clear();
  options_.pass.stop = nullptr;
  options_.pass.finished_from = 2;
  ASSERT_TRUE(RunFisherPass(*checkpoint_, sequences_, options_).ok());
  ASSERT_EQ(saved_.size(), 2u);
  EXPECT_TRUE(SameBits(saved_[1], whole.at(1)));
  EXPECT_TRUE(SameBits(saved_[0], whole.at(0)));
}

TEST_F(FisherPassTest, FoldersWithTheNamesOfItsFilesAreReplaced) {
  ASSERT_TRUE(RunFisherPass(*checkpoint_, sequences_, options_).ok());
  const auto whole = saved_;
  saved_.clear();
  for (const char* name : {"gradient.1.bin", "hidden.2.bin", "gradient.2.bin.partial"}) {
    ASSERT_TRUE(CreateDirectories(options_.pass.scratch / name / "deeper").ok());
  }
  const absl::Status status = RunFisherPass(*checkpoint_, sequences_, options_);
  ASSERT_TRUE(status.ok()) << status;
  for (const auto& [layer, statistics] : whole) {
    EXPECT_TRUE(SameBits(saved_[layer], statistics)) << layer;
  }
  EXPECT_TRUE(ListDirectory(options_.pass.scratch).value().empty()) << "files were left";
}

TEST_F(FisherPassTest, LostFilesAreMadeAgain) {
  ASSERT_TRUE(RunFisherPass(*checkpoint_, sequences_, options_).ok());
  const auto whole = saved_;
  saved_.clear();
  options_.save = [this](int64_t layer, const factorize::LossStatistics& statistics) {
    saved_[layer] = statistics;
    return layer == 1 ? absl::ResourceExhaustedError("no space") : absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsResourceExhausted(RunFisherPass(*checkpoint_, sequences_, options_)));
  ASSERT_TRUE(RemoveTree(options_.pass.scratch).ok());
  ASSERT_TRUE(CreateDirectories(options_.pass.scratch).ok());
  saved_.clear();
  options_.pass.finished_from = 2;
  options_.save = [this](int64_t layer, const factorize::LossStatistics& statistics) {
    saved_[layer] = statistics;
    return absl::OkStatus();
  };
  ASSERT_TRUE(RunFisherPass(*checkpoint_, sequences_, options_).ok());
  ASSERT_EQ(saved_.size(), 2u);
  EXPECT_TRUE(SameBits(saved_[0], whole.at(0)));
  EXPECT_TRUE(SameBits(saved_[1], whole.at(1)));
}

}  // namespace
}  // namespace latentforge::calibrate
