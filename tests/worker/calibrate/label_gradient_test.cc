#include "worker/calibrate/label_gradient.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

namespace latentforge::calibrate {
namespace {

constexpr int64_t kRows = 40;
constexpr int64_t kVocabulary = 37;
constexpr int64_t kWidth = 6;

class LabelGradientTest : public testing::Test {
 protected:
  LabelGradientTest()
      : x_(at::arange(kRows * kWidth, at::kDouble)
               .mul(0.7)
               .sin()
               .view({kRows, kWidth})
               .to(at::kFloat)),
        head_(at::arange(kVocabulary * kWidth, at::kDouble)
                  .mul(1.3)
                  .cos()
                  .mul(2)
                  .view({kVocabulary, kWidth})
                  .to(at::kFloat)) {}

  HeadRows Head() const {
    return [this](int64_t begin, int64_t end) { return head_.narrow(0, begin, end - begin); };
  }
  at::Tensor Softmax() const { return x_.to(at::kDouble).mm(head_.to(at::kDouble).t()).softmax(1); }
  at::Tensor Expected(const at::Tensor& labels) const {
    const at::Tensor error = Softmax();
    for (int64_t i = 0; i < kRows; ++i) {
      const int64_t label = labels[i].item<int64_t>();
      if (label < 0) {
        error[i].zero_();
      } else {
        error[i][label] -= 1;
      }
    }
    return error.mm(head_.to(at::kDouble));
  }

  at::Tensor x_, head_;
  // Blocks of 10, 10, 10 and 7 words, for 16, 16 and 8 rows.
  LabelGradientOptions options_{.vocabulary = kVocabulary,
                                .block_vocabulary = 10,
                                .logit_bytes = int64_t{16} * kVocabulary * int64_t{sizeof(float)}};
};

TEST_F(LabelGradientTest, LabelsInvertTheCumulativeDistribution) {
  const at::Tensor uniforms = at::arange(kRows, at::kDouble).mul(0.6180339887).frac();
  const auto result = SampledLabelGradient(x_, uniforms, Head(), options_);
  ASSERT_TRUE(result.ok()) << result.status();
  const at::Tensor cumulative = Softmax().cumsum(1);
  for (int64_t i = 0; i < kRows; ++i) {
    const double u = uniforms[i].item<double>();
    int64_t label = 0;
    while (cumulative[i][label].item<double>() <= u) ++label;
    EXPECT_EQ(result->labels[i].item<int64_t>(), label) << i;
  }
  // fp32 logits up to 12: relative errors of 12 * 6e-8 in each of a few terms.
  EXPECT_LT((result->gradient - Expected(result->labels)).abs().max().item<double>(), 1e-5);
}

TEST_F(LabelGradientTest, ExtremeUniformsGiveLabelsOfTheVocabulary) {
  const at::Tensor uniforms =
      at::where(at::arange(kRows) % 2 == 0, at::zeros({kRows}, at::kDouble),
                at::full({kRows}, 1 - std::numeric_limits<double>::epsilon() / 2, at::kDouble));
  const auto result = SampledLabelGradient(x_, uniforms, Head(), options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->labels.min().item<int64_t>(), 0);
  EXPECT_EQ(result->labels.max().item<int64_t>(), kVocabulary - 1);
}

TEST_F(LabelGradientTest, GivenLabelsAndNone) {
  const at::Tensor labels = at::arange(kRows).mul(5).remainder(kVocabulary);
  labels[3] = -1;
  const auto result = TextLabelGradient(x_, labels, Head(), options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->gradient[3].abs().max().item<double>(), 0);
  EXPECT_LT((result->gradient - Expected(labels)).abs().max().item<double>(), 1e-5);
}

TEST_F(LabelGradientTest, SaysWhatIsNotFiniteAndStops) {
  head_[5][2] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor labels = at::zeros({kRows}, at::kLong);
  EXPECT_TRUE(absl::IsDataLoss(TextLabelGradient(x_, labels, Head(), options_).status()));
  options_.stop = [] { return true; };
  EXPECT_TRUE(absl::IsCancelled(TextLabelGradient(x_, labels, Head(), options_).status()));
}

}  // namespace
}  // namespace latentforge::calibrate
