#include "worker/low_rank/joint_value_output.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "tests/worker/low_rank/joint_reference.h"

namespace latentforge::low_rank {
namespace {

struct Shape {
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t channels = 30;
  int64_t out = 28;
  int64_t tokens = 80;
  bool bias = true;
};

constexpr int64_t kWidth = 6;

constexpr Shape kFamilies[] = {
    {.heads = 4, .kv_heads = 4},                  // MHA
    {.heads = 4, .kv_heads = 2, .bias = false},   // GQA
    {.heads = 4, .kv_heads = 1},                  // MQA
    {.heads = 6, .kv_heads = 2, .out = 20},       // more heads' channels than outputs
    {.heads = 6, .kv_heads = 3, .channels = 14},  // more values than inputs
    {.heads = 4, .kv_heads = 2, .tokens = 13},    // fewer tokens than channels
};

struct Toy {
  ValueOutputProblem problem;
  at::Tensor x;
};

Toy MakeToy(const Shape& shape, uint64_t seed) {
  Toy toy;
  toy.x = ToyInputs(shape.channels, shape.tokens, seed);
  ValueOutputProblem& p = toy.problem;
  p.heads = shape.heads;
  p.kv_heads = shape.kv_heads;
  p.head_dim = kWidth;
  p.input = MomentsOf(toy.x);
  p.value.weight = RandomMatrix(shape.kv_heads * kWidth, shape.channels, seed + 10);
  // Output heads that hear some directions of the values far better than others.
  p.output.weight = RandomMatrix(shape.out, shape.heads * kWidth, seed + 11) *
                    at::logspace(0, -1.5, kWidth, 10, at::kDouble).repeat({shape.heads});
  if (shape.bias) {
    p.value.bias = RandomMatrix(1, shape.kv_heads * kWidth, seed + 12)[0];
    p.output.bias = RandomMatrix(1, shape.out, seed + 13)[0];
  }
  return toy;
}

JointValueOutput Compress(const Toy& toy, const TuckerRanks& ranks,
                          const ValueOutputOptions& options = {}) {
  auto joint = CompressValueOutput(toy.problem, ranks, options);
  EXPECT_TRUE(joint.ok()) << joint.status();
  return *std::move(joint);
}

at::Tensor OutputHead(const at::Tensor& output, int64_t head) {
  return output.narrow(1, head * kWidth, kWidth);
}

// sum_i of the mean over tokens of ||W_o,i W_v,g x - W_o,i' W_v,g' x||^2, head by head.
double TokenLoss(const Toy& toy, const at::Tensor& value, const at::Tensor& output, bool centred) {
  const ValueOutputProblem& p = toy.problem;
  const at::Tensor x = centred ? toy.x - toy.x.mean(1, /*keepdim=*/true) : toy.x;
  double loss = 0;
  for (int64_t head = 0; head < p.heads; ++head) {
    const int64_t group = head / (p.heads / p.kv_heads);
    const at::Tensor original =
        at::matmul(OutputHead(p.output.weight, head), Head(p.value.weight, group, kWidth));
    const at::Tensor other = at::matmul(OutputHead(output, head), Head(value, group, kWidth));
    loss += SquaredNorm(at::matmul(original - other, x)) / double(x.size(1));
  }
  return loss;
}

at::Tensor Product(const LowRank& factors) { return at::matmul(factors.up, factors.down); }

// Row-stochastic causal attention of each head, [heads, n, n].
at::Tensor RandomAttention(int64_t heads, int64_t tokens, uint64_t seed) {
  const at::Tensor scores =
      2 * RandomMatrix(heads * tokens, tokens, seed).reshape({heads, tokens, tokens});
  const at::Tensor later = at::ones({tokens, tokens}, at::kBool).triu(1);
  return at::softmax(scores.masked_fill(later, -1e300), -1);
}

// The heads' contexts side by side, [heads * width, n].
at::Tensor Contexts(const Toy& toy, const at::Tensor& values, const at::Tensor& attention) {
  const ValueOutputProblem& p = toy.problem;
  std::vector<at::Tensor> contexts;
  for (int64_t head = 0; head < p.heads; ++head) {
    const at::Tensor own = Head(values, head / (p.heads / p.kv_heads), kWidth);
    contexts.push_back(at::matmul(own, attention[head].t()));
  }
  return at::cat(contexts, 0);
}

at::Tensor Attend(const Toy& toy, const Linear& value, const Linear& output,
                  const at::Tensor& attention) {
  return Apply(output, Contexts(toy, Apply(value, toy.x), attention));
}

// As in joint_query_key_test.cc.
constexpr double kTolerance = 1e-10;

// Oracle 6 for values and outputs, by explicit tokens and heads.
TEST(JointValueOutputTest, LossesFallAndAreThoseOfTokens) {
  for (const bool centred : {true, false}) {
    for (const Shape& shape : kFamilies) {
      const Toy toy = MakeToy(shape, 400);
      const JointValueOutput joint = Compress(
          toy, {.left = 6, .right = 4},
          {.mode = ValueOutputMode::kBoth, .centred = centred, .solver = {.tolerance = 0}});
      const double all = joint.loss_of_nothing;
      for (size_t step = 1; step < joint.losses.size(); ++step) {
        EXPECT_LE(joint.losses[step], joint.losses[step - 1] + 1e-13 * all);
      }
      const double loss = TokenLoss(toy, Product(joint.value), Product(*joint.output), centred);
      EXPECT_NEAR(joint.loss, loss, kTolerance * all);
      EXPECT_NEAR(joint.losses.back(), loss, kTolerance * all);
      EXPECT_LT(joint.loss, *joint.local_loss);
      const at::Tensor none = at::zeros_like(toy.problem.value.weight);
      EXPECT_NEAR(all, TokenLoss(toy, none, toy.problem.output.weight, centred), kTolerance * all);
    }
  }
}

// B_o is orthonormal, and the compressed output projection is B_o B_o^T W_o.
TEST(JointValueOutputTest, TheOutputIsProjectedOrthogonally) {
  const Toy toy = MakeToy(kFamilies[1], 405);
  const JointValueOutput joint =
      Compress(toy, {.left = 7, .right = 5}, {.mode = ValueOutputMode::kBoth});
  const at::Tensor& up = joint.output->up;
  EXPECT_LT(MaxAbs(at::matmul(up.t(), up) - at::eye(7, at::kDouble)), 1e-11);
  EXPECT_LT(MaxAbs(joint.output->down - at::matmul(up.t(), toy.problem.output.weight)), 1e-11);
}

// The optimum over values alone, with the output projection whole, is the top eigenvectors of
// sum_g V_g^T (sum_i W_o,i^T W_o,i) V_g, taken with symmetric roots.
TEST(JointValueOutputTest, AWholeOutputLeavesTheBestValues) {
  const Toy toy = MakeToy(kFamilies[1], 410);
  const ValueOutputProblem& p = toy.problem;
  const at::Tensor root = SymmetricRoot(p.input.covariance);
  at::Tensor m = at::zeros_like(root);
  for (int64_t head = 0; head < p.heads; ++head) {
    const at::Tensor g = at::matmul(OutputHead(p.output.weight, head),
                                    at::matmul(Head(p.value.weight, head / 2, kWidth), root));
    m = m + at::matmul(g.t(), g);
  }
  const at::Tensor rows = LeadingRows(m, 4);
  const at::Tensor best =
      at::matmul(at::matmul(at::matmul(p.value.weight, root), at::matmul(rows.t(), rows)),
                 at::linalg_inv(root));
  const JointValueOutput joint = Compress(toy, {.left = 24, .right = 4}, {.centred = false});
  // C's condition number is below 1e5 here.
  EXPECT_LT(MaxAbs(Product(joint.value) - best), 1e-9 * MaxAbs(best));
  const auto loss = ValueOutputLoss(p, false, joint.value, {});
  ASSERT_TRUE(loss.ok()) << loss.status();
  EXPECT_NEAR(*loss, joint.loss, kTolerance * joint.loss_of_nothing);
  EXPECT_FALSE(joint.output.has_value());
  EXPECT_FALSE(joint.output_bias.defined());
}

// Oracle 10: constants of values fold into the output's bias, whatever the attention. The same
// values with their own bias, not folded, and the original projection are the reference.
TEST(JointValueOutputTest, BiasesFoldExactly) {
  for (const bool centred : {true, false}) {
    for (const Shape& shape : kFamilies) {
      const Toy toy = MakeToy(shape, 420);
      const ValueOutputProblem& p = toy.problem;
      const JointValueOutput joint = Compress(toy, {.left = 6, .right = 4}, {.centred = centred});
      Linear value = AsLinear(joint.value);
      EXPECT_FALSE(value.bias.defined());
      Linear biased{.weight = value.weight, .bias = p.value.bias};
      if (centred) {
        const at::Tensor missing = at::mv(p.value.weight - value.weight, p.input.mean);
        biased.bias = biased.bias.defined() ? biased.bias + missing : missing;
      }
      const at::Tensor attention = RandomAttention(p.heads, shape.tokens, 421);
      const at::Tensor folded =
          Attend(toy, value, {.weight = p.output.weight, .bias = joint.output_bias}, attention);
      const at::Tensor plain = Attend(toy, biased, p.output, attention);
      EXPECT_LT(MaxAbs(folded - plain), 1e-12 * MaxAbs(plain));
    }
  }
}

// With both compressed and uniform attention over all tokens, contexts are the mean: only the
// constants are left, and they are exact.
TEST(JointValueOutputTest, BothKeepTheMeanOutput) {
  for (const Shape& shape : kFamilies) {
    const Toy toy = MakeToy(shape, 425);
    const ValueOutputProblem& p = toy.problem;
    const JointValueOutput joint =
        Compress(toy, {.left = 5, .right = 3}, {.mode = ValueOutputMode::kBoth});
    const int64_t n = shape.tokens;
    const at::Tensor uniform = at::full({p.heads, n, n}, 1.0 / double(n), at::kDouble);
    const at::Tensor original = Attend(toy, p.value, p.output, uniform);
    const at::Tensor other = Attend(toy, AsLinear(joint.value), AsLinear(*joint.output), uniform);
    EXPECT_LT(MaxAbs(other - original), 1e-11 * MaxAbs(original));
    EXPECT_TRUE(at::equal(joint.output->bias, joint.output_bias));
  }
}

// Oracle 7: full ranks are exact for inputs never seen, under any attention.
TEST(JointValueOutputTest, FullRanksAreExact) {
  for (const Shape& shape : kFamilies) {
    Toy toy = MakeToy(shape, 430);
    const ValueOutputProblem& p = toy.problem;
    const TuckerRanks full{.left = std::min(shape.out, shape.heads * kWidth),
                           .right = std::min(shape.channels, shape.kv_heads * kWidth)};
    const JointValueOutput joint = Compress(toy, full, {.mode = ValueOutputMode::kBoth});
    EXPECT_LT(joint.loss, 1e-20 * joint.loss_of_nothing);
    toy.x = RandomMatrix(shape.channels, 12, 431);
    const at::Tensor attention = RandomAttention(shape.heads, 12, 432);
    const at::Tensor original = Attend(toy, p.value, p.output, attention);
    const at::Tensor other = Attend(toy, AsLinear(joint.value), AsLinear(*joint.output), attention);
    EXPECT_LT(MaxAbs(other - original), 1e-10 * MaxAbs(original));
  }
}

// Oracle 9.
TEST(JointValueOutputTest, RepeatedValueHeadsAreOneHead) {
  const Toy grouped = MakeToy({.heads = 4, .kv_heads = 2}, 440);
  Toy repeated = grouped;
  ValueOutputProblem& p = repeated.problem;
  p.kv_heads = 4;
  const auto repeat = [](const at::Tensor& rows) {
    return rows.reshape({2, kWidth, -1}).repeat_interleave(2, 0).reshape({4 * kWidth, -1});
  };
  p.value = {.weight = repeat(p.value.weight), .bias = repeat(p.value.bias).squeeze(1)};
  const JointValueOutput a = Compress(grouped, {.left = 6, .right = 4});
  const JointValueOutput b = Compress(repeated, {.left = 6, .right = 4});
  EXPECT_NEAR(a.loss, b.loss, kTolerance * a.loss_of_nothing);
  EXPECT_LT(MaxAbs(a.value.down.abs() - b.value.down.abs()), 1e-7 * MaxAbs(a.value.down));
}

// Root-covariance low rank of the output projection on its real input, with the mean kept.
Linear LocalOutput(const Toy& toy, const Linear& value, const Linear& output, int64_t rank,
                   const at::Tensor& attention) {
  const at::Tensor contexts = Contexts(toy, Apply(value, toy.x), attention);
  const at::Tensor y = at::matmul(output.weight, contexts - contexts.mean(1, true));
  const at::Tensor rows = LeadingRows(at::matmul(y, y.t()), rank);
  const at::Tensor weight = at::matmul(at::matmul(rows.t(), rows), output.weight);
  const at::Tensor missing = at::mv(output.weight - weight, contexts.mean(1));
  return {.weight = weight, .bias = output.bias + missing};
}

// The mode recommended, values jointly and the output locally on what they make, against values
// and output both locally; with the moments of tokens and with those of contexts.
TEST(JointValueOutputTest, JointValuesServeALocalOutputBetter) {
  for (uint64_t seed = 450; seed < 454; ++seed) {
    const Toy toy = MakeToy({.heads = 4, .kv_heads = 2, .tokens = 120}, seed);
    const ValueOutputProblem& p = toy.problem;
    const at::Tensor attention = RandomAttention(p.heads, 120, seed + 30);
    const at::Tensor original = Attend(toy, p.value, p.output, attention);
    const auto error = [&](const Linear& value, const Linear& output) {
      const Linear local = LocalOutput(toy, value, output, 12, attention);
      return SquaredNorm(Attend(toy, value, local, attention) - original);
    };
    const auto joint_error = [&](const Toy& posed) {
      const JointValueOutput joint = Compress(posed, {.left = 12, .right = 5});
      return error(AsLinear(joint.value), {.weight = p.output.weight, .bias = joint.output_bias});
    };
    const at::Tensor centred = p.input.covariance - at::outer(p.input.mean, p.input.mean);
    const at::Tensor rows =
        LeadingRows(at::matmul(at::matmul(p.value.weight, centred), p.value.weight.t()), 5);
    const at::Tensor weight = at::matmul(at::matmul(rows.t(), rows), p.value.weight);
    const at::Tensor missing = at::mv(p.value.weight - weight, p.input.mean);
    const double local = error({.weight = weight, .bias = p.value.bias + missing}, p.output);
    EXPECT_LT(joint_error(toy), local);

    Toy contexts = toy;
    const at::Tensor averaged = at::matmul(attention, toy.x.t()).reshape({-1, 30}).t();
    contexts.problem.input = MomentsOf(averaged);
    EXPECT_LT(joint_error(contexts), local);
  }
}

TEST(JointValueOutputTest, SpectraBoundTheLossOfEveryRank) {
  for (const Shape& shape : kFamilies) {
    const Toy toy = MakeToy(shape, 460);
    const auto spectra = ValueOutputSpectra(toy.problem, {});
    ASSERT_TRUE(spectra.ok()) << spectra.status();
    for (const int64_t left : {1, 5, 12}) {
      for (const int64_t right : {1, 3, 6}) {
        const TuckerRanks ranks{.left = left, .right = right};
        const JointValueOutput joint = Compress(toy, ranks);
        const double slack = kTolerance * joint.loss_of_nothing;
        EXPECT_LE(joint.loss, spectra->AtMost(ranks) + slack);
        EXPECT_GE(joint.loss, spectra->AtLeast(ranks) - slack);
      }
    }
  }
}

TEST(JointValueOutputTest, RefusesWrongArguments) {
  using enum absl::StatusCode;
  const Toy toy = MakeToy({}, 470);
  const TuckerRanks ranks{.left = 6, .right = 4};
  const auto status = [&](const ValueOutputProblem& p,
                          const TuckerRanks& at = {.left = 6, .right = 4},
                          const ValueOutputOptions& options = {}) {
    return CompressValueOutput(p, at, options).status();
  };
  EXPECT_EQ(status(toy.problem, {.left = 25, .right = 4}).message(),
            "rank of output is 25, expected 1 to 24");
  EXPECT_EQ(status(toy.problem, {.left = 6, .right = 0}).code(), kOutOfRange);
  EXPECT_EQ(status(toy.problem, ranks, {.damping = -1}).code(), kInvalidArgument);
  EXPECT_EQ(status(toy.problem, ranks, {.solver = {.sweeps = -1}}).code(), kInvalidArgument);
  ValueOutputProblem p = toy.problem;
  p.kv_heads = 3;
  EXPECT_EQ(status(p).code(), kInvalidArgument);
  p = toy.problem;
  p.output.weight = p.output.weight.t();
  EXPECT_EQ(status(p).code(), kInvalidArgument);
  p = toy.problem;
  p.value.bias = p.value.bias.narrow(0, 0, 3);
  EXPECT_EQ(status(p).code(), kInvalidArgument);
  p = toy.problem;
  p.input.mean = p.input.mean / 0.0;
  EXPECT_EQ(status(p).code(), kInternal);
  const JointValueOutput joint = Compress(toy, ranks, {.mode = ValueOutputMode::kBoth});
  EXPECT_EQ(ValueOutputLoss(toy.problem, true, *joint.output, {}).status().code(),
            kInvalidArgument);
  EXPECT_EQ(ValueOutputLoss(toy.problem, true, joint.value, joint.value).status().code(),
            kInvalidArgument);
}

}  // namespace
}  // namespace latentforge::low_rank
