#include "worker/evaluate/perplexity.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>

#include "tests/checkpoint/fixture.h"
#include "worker/model/decoder.h"

namespace latentforge::evaluate {
namespace {

using checkpoint::Checkpoint;
using testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

std::vector<int32_t> Tokens(size_t count) {
  std::vector<int32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(i * i % 61);
  return tokens;
}

TEST(CutWindows, WholeWindowsOnly) {
  const auto all = CutWindows(Tokens(35), 10, 0);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->count, 3);
  EXPECT_EQ(all->ids.size(), 30u);
  EXPECT_EQ(all->Window(2)[0], 20 * 20 % 61);
  EXPECT_EQ(CutWindows(Tokens(35), 10, 2)->count, 2);
}

TEST(CutWindows, TooFewTokensNamesBothNumbers) {
  const absl::Status status = CutWindows(Tokens(35), 10, 4).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), HasSubstr("35 tokens"));
  EXPECT_THAT(Message(status), HasSubstr("expected 4 windows"));
  EXPECT_FALSE(CutWindows(Tokens(9), 10, 0).ok());
  EXPECT_FALSE(CutWindows({}, 10, 0).ok());
  EXPECT_FALSE(CutWindows(Tokens(35), 1, 1).ok());
  EXPECT_FALSE(CutWindows(Tokens(35), 10, -1).ok());
}

class PerplexityTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::filesystem::path dir = checkpoint::NewTestDirectory("perplexity") / "model";
    ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(dir, {.num_layers = 3, .scale = 0.4}).ok());
    auto source = Checkpoint::Open(dir);
    ASSERT_TRUE(source.ok()) << source.status();
    source_ = std::make_unique<Checkpoint>(*std::move(source));
    windows_ = *CutWindows(Tokens(120), 20, 0);
    options_.dtype = at::kFloat;
    options_.group_tokens = 40;  // groups of two windows
  }

  // The protocol, one window at a time, with whole logits in double.
  std::vector<double> Reference() const {
    const model::WeightLoader loader(*source_, at::kCPU, at::kFloat);
    model::Decoder decoder =
        *model::Decoder::Create(source_->config(), at::kCPU, at::kFloat, windows_.length);
    std::vector<double> result;
    for (int64_t i = 0; i < windows_.count; ++i) {
      const at::Tensor x = *loader.Embed(windows_.Window(i), windows_.length);
      for (int64_t layer = 0; layer < 3; ++layer) {
        EXPECT_TRUE(decoder.Forward(*loader.Layer(layer), x.unsqueeze(0)).ok());
      }
      const at::Tensor normed = *decoder.FinalNorm(x, *loader.FinalNorm());
      const at::Tensor logits =
          normed.mm(loader.LmHeadRows(0, source_->config().vocab_size)->t()).to(at::kDouble);
      double sum = 0;
      for (int64_t t = 0; t + 1 < windows_.length; ++t) {
        const int64_t target = windows_.Window(i)[static_cast<size_t>(t + 1)];
        sum += (logits[t].exp().sum().log() - logits[t][target]).item<double>();
      }
      result.push_back(sum / static_cast<double>(windows_.length - 1));
    }
    return result;
  }

  absl::StatusOr<PerplexityResult> Run() const {
    return EvaluatePerplexity(*source_, windows_, options_);
  }

  std::unique_ptr<Checkpoint> source_;
  TokenWindows windows_;
  PerplexityOptions options_;
};

TEST_F(PerplexityTest, FollowsTheProtocol) {
  const auto result = Run();
  ASSERT_TRUE(result.ok()) << result.status();
  const std::vector<double> expected = Reference();
  ASSERT_EQ(result->window_nll.size(), expected.size());
  double sum = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(result->window_nll[i], expected[i], 1e-5) << i;  // fp32 logits of size 10
    sum += result->window_nll[i];
  }
  EXPECT_DOUBLE_EQ(result->perplexity, std::exp(sum / static_cast<double>(expected.size())));
  EXPECT_EQ(result->tokens, 120);
}

TEST_F(PerplexityTest, GroupsDoNotMatter) {
  const auto pairs = Run();
  options_.group_tokens = 0;
  const auto together = Run();
  options_.max_hidden_bytes = 1;
  const auto alone = Run();
  ASSERT_TRUE(pairs.ok() && together.ok() && alone.ok());
  EXPECT_NEAR(pairs->perplexity / together->perplexity, 1, 1e-6);
  EXPECT_NEAR(alone->perplexity / together->perplexity, 1, 1e-6);
}

TEST_F(PerplexityTest, ResumesAfterFinishedWindows) {
  const auto whole = Run();
  ASSERT_TRUE(whole.ok());
  for (const size_t done : {size_t{2}, size_t{6}}) {
    options_.finished.assign(whole->window_nll.begin(),
                             whole->window_nll.begin() + static_cast<int64_t>(done));
    const auto rest = Run();
    ASSERT_TRUE(rest.ok()) << rest.status();
    EXPECT_EQ(rest->window_nll, whole->window_nll);
    EXPECT_EQ(rest->tokens, static_cast<int64_t>(20 * (6 - done)));
  }
  options_.finished.assign(7, 1.0);
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kInvalidArgument);
  options_.finished = {std::numeric_limits<double>::quiet_NaN()};
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(PerplexityTest, StopsBetweenLayers) {
  int asked = 0;
  options_.stop = [&] { return ++asked == 2; };
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 2);
}

TEST_F(PerplexityTest, ProgressRunsToTheEnd) {
  std::vector<double> tokens, values;
  options_.progress = [&](const PerplexityProgress& progress) {
    tokens.push_back(progress.tokens_done);
    values.push_back(progress.perplexity);
    EXPECT_EQ(progress.tokens_total, 120);
  };
  const auto result = Run();
  ASSERT_TRUE(result.ok());
  ASSERT_EQ(tokens.size(), 12u);  // three groups of three layers and the head
  EXPECT_TRUE(std::is_sorted(tokens.begin(), tokens.end()));
  EXPECT_EQ(tokens.back(), 120);
  EXPECT_TRUE(std::isnan(values.front()));
  EXPECT_EQ(values.back(), result->perplexity);
}

TEST_F(PerplexityTest, AdjustedLayersCount) {
  const auto before = Run();
  options_.adjust_layer = [](int64_t layer, model::LayerWeights& weights) {
    if (layer == 1) weights.v = {.down = at::zeros({1, 32}), .up = at::zeros({16, 1})};
    return absl::OkStatus();
  };
  const auto after = Run();
  ASSERT_TRUE(before.ok() && after.ok()) << after.status();
  EXPECT_GT(std::abs(before->perplexity - after->perplexity), 1e-3);
}

TEST_F(PerplexityTest, NonFiniteValuesNameLayerAndWindow) {
  options_.group_tokens = 0;
  options_.adjust_layer = [](int64_t layer, model::LayerWeights& weights) {
    if (layer == 2) weights.v.weight[0][0] = std::numeric_limits<float>::infinity();
    return absl::OkStatus();
  };
  const absl::Status status = Run().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(status), HasSubstr("layer 2, window 0"));
}

TEST_F(PerplexityTest, RefusesWhatDoesNotFit) {
  options_.dtype = at::kHalf;
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kInvalidArgument);
  options_.dtype = at::kFloat;
  windows_.ids[5] = 64;
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kInvalidArgument);
  windows_.ids.pop_back();
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace latentforge::evaluate
