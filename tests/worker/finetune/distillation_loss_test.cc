#include "worker/finetune/distillation_loss.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

namespace latentforge::finetune {
namespace {

constexpr int64_t kRows = 11;
constexpr int64_t kWidth = 24;
constexpr int64_t kVocabulary = 301;

struct Problem {
  at::Tensor teacher, student, head, labels;
};

Problem MakeProblem(at::ScalarType dtype) {
  at::manual_seed(5);
  Problem problem{at::randn({kRows, kWidth}), at::Tensor(), at::randn({kVocabulary, kWidth}) * 0.4,
                  at::randint(kVocabulary, {kRows}, at::kLong)};
  problem.student = problem.teacher + at::randn({kRows, kWidth}) * 0.2;
  problem.labels[3] = -1;
  for (at::Tensor* x : {&problem.teacher, &problem.student, &problem.head}) *x = x->to(dtype);
  return problem;
}

class DistillationLossTest : public testing::TestWithParam<int64_t> {};

TEST_P(DistillationLossTest, AgreesWithAutogradInDoublePrecision) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const Problem problem = MakeProblem(dtype);
    const auto found = Distill(problem.teacher, problem.student, problem.head, problem.labels,
                               {.block_elements = GetParam()});
    ASSERT_TRUE(found.ok()) << found.status();
    const at::AutoGradMode with_gradients(true);
    const at::Tensor x = problem.student.to(at::kDouble).detach().requires_grad_();
    const at::Tensor head = problem.head.to(at::kDouble);
    const at::Tensor p = problem.teacher.to(at::kDouble).mm(head.t()).softmax(1);
    const at::Tensor log_q = x.mm(head.t()).log_softmax(1);
    const at::Tensor divergence = (p * (p.log() - log_q)).sum() / double(kRows);
    const at::Tensor nll = -log_q.gather(1, problem.labels.clamp_min(0).unsqueeze(1)).squeeze(1);
    const at::Tensor expected = torch::autograd::grad({divergence}, {x})[0];
    // Logits of up to 8 are rounded to the type (bf16: 2^-8 of them, of both models), which
    // shifts the divergence of about 0.3 and the likelihoods by that much at most.
    const double rounding = dtype == at::kBFloat16 ? 0.03 : 1e-5;
    EXPECT_NEAR(found->divergence, divergence.item<double>(), rounding);
    EXPECT_NEAR(found->nll, (nll.sum() - nll[3]).item<double>() / double(kRows - 1), rounding);
    EXPECT_LT((found->gradient.to(at::kDouble) - expected).abs().max().item<double>(), rounding);
  }
}

INSTANTIATE_TEST_SUITE_P(Blocks, DistillationLossTest,
                         testing::Values(1, 4 * kVocabulary, int64_t{1} << 20));

TEST(DistillationLossTest, EqualModelsHaveNoDivergence) {
  const Problem problem = MakeProblem(at::kFloat);
  const auto found = Distill(problem.teacher, problem.teacher, problem.head, problem.labels, {});
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->divergence, 0);
  EXPECT_EQ(found->gradient.abs().max().item<double>(), 0);
}

TEST(DistillationLossTest, NamesALossThatIsNotFinite) {
  Problem problem = MakeProblem(at::kFloat);
  problem.student[2][3] = std::numeric_limits<float>::quiet_NaN();
  const auto found = Distill(problem.teacher, problem.student, problem.head, problem.labels, {});
  EXPECT_TRUE(absl::IsDataLoss(found.status())) << found.status();
}

TEST(DistillationLossTest, Stops) {
  const Problem problem = MakeProblem(at::kFloat);
  const auto found = Distill(problem.teacher, problem.student, problem.head, problem.labels,
                             {.stop = [] { return true; }});
  EXPECT_TRUE(absl::IsCancelled(found.status()));
}

}  // namespace
}  // namespace latentforge::finetune
