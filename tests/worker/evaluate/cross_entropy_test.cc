#include "worker/evaluate/cross_entropy.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace latentforge::evaluate {
namespace {

// Another way, all at once and in double.
at::Tensor Reference(const at::Tensor& logits, const at::Tensor& targets) {
  return -at::log_softmax(logits.to(at::kDouble), 1).gather(1, targets.unsqueeze(1)).squeeze(1);
}

struct Problem {
  at::Tensor x = at::sin(at::arange(37 * 8, at::kFloat).mul(1.3)).mul(4).view({37, 8});
  at::Tensor head = at::sin(at::arange(101 * 8, at::kFloat).mul(2.1)).mul(3).view({101, 8});
  at::Tensor targets = at::arange(37).mul(29).remainder(101);

  HeadRows Rows() const {
    return [this](int64_t begin, int64_t end) -> absl::StatusOr<at::Tensor> {
      return head.narrow(0, begin, end - begin);
    };
  }
};

class CrossEntropyTest : public testing::TestWithParam<std::pair<int64_t, int64_t>> {};

TEST_P(CrossEntropyTest, BlocksDoNotChangeTheResult) {
  const Problem problem;
  const auto nll = TargetNll(
      problem.x, problem.targets, problem.Rows(),
      {.vocabulary = 101, .block_rows = GetParam().first, .block_vocabulary = GetParam().second});
  ASSERT_TRUE(nll.ok()) << nll.status();
  const at::Tensor expected = Reference(problem.x.mm(problem.head.t()), problem.targets);
  // Logits up to 100 in fp32, off by 1e-5 each.
  EXPECT_LT((*nll - expected).abs().max().item<double>(), 5e-5);
}

INSTANTIATE_TEST_SUITE_P(Blocks, CrossEntropyTest,
                         testing::Values(std::pair{37, 101}, std::pair{1000, 1000}, std::pair{1, 1},
                                         std::pair{5, 7}, std::pair{36, 100}));

TEST(CrossEntropy, Bf16LogitsAreRoundedOnce) {
  const Problem problem;
  const at::Tensor x = problem.x.to(at::kBFloat16), head = problem.head.to(at::kBFloat16);
  const auto rows = [&](int64_t begin, int64_t end) -> absl::StatusOr<at::Tensor> {
    return head.narrow(0, begin, end - begin);
  };
  const auto nll = TargetNll(x, problem.targets, rows, {.vocabulary = 101});
  ASSERT_TRUE(nll.ok()) << nll.status();
  const at::Tensor expected = Reference(x.mm(head.t()), problem.targets);
  EXPECT_LT((*nll - expected).abs().max().item<double>(), 5e-5);
}

// Types without row kernels go through LibTorch's operations, as on a GPU.
TEST(CrossEntropy, GenericOperationsAgree) {
  const Problem problem;
  const at::Tensor logits = problem.x.mm(problem.head.t());
  LogSumExp fast(problem.targets), generic(problem.targets);
  for (const auto& [column, width] : {std::pair{0, 60}, std::pair{60, 41}}) {
    fast.Add(logits.narrow(1, column, width), 0, column);
    generic.Add(logits.to(at::kDouble).narrow(1, column, width), 0, column);
  }
  EXPECT_LT((fast.Nll() - generic.Nll()).abs().max().item<double>(), 5e-5);
}

TEST(CrossEntropy, StopsAndPassesErrorsOn) {
  const Problem problem;
  const auto stopped = TargetNll(problem.x, problem.targets, problem.Rows(),
                                 {.vocabulary = 101, .stop = [] { return true; }});
  EXPECT_EQ(stopped.status().code(), absl::StatusCode::kCancelled);
  const auto failed = TargetNll(
      problem.x, problem.targets,
      [](int64_t, int64_t) -> absl::StatusOr<at::Tensor> { return absl::DataLossError("gone"); },
      {.vocabulary = 101});
  EXPECT_EQ(failed.status(), absl::DataLossError("gone"));
}

}  // namespace
}  // namespace latentforge::evaluate
